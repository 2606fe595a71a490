"""Whether a checkpoint holds the model that its configuration describes: every tensor, by name and shape.

What is missing transformers draws at random, with a warning that no pipeline reads. So the files' headers are loaded
as transformers itself would load the weights, renamings and fused experts included, but on the meta device, where it
costs milliseconds for a model of any size.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leap_repro.errors import UserError, reason
from leap_repro.models.checkpoint import FLOATING, Entry, tensors, weight_files
from leap_repro.models.layout import load_headers, sources_of
from leap_repro.models.prunable import decoder_blocks
from leap_repro.store.tensor_files import TensorFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
ROWS = 4096
SHOWN = 3
"""How many names a sentence gives of a longer list."""
META = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def check_agreement(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """UserError that names tensors unless the files in `folder` hold `model` (which may be on the meta device).

    Tensors of other modules that the model has no use for, as a vision tower's, are allowed and logged.
    Returns the model as loaded from headers, which knows how its tensors are called in the files.
    """
    entries = tensors(folder)
    _check_types(model, entries, folder)
    _check_tied(model, entries, folder)
    headers = {
        name: torch.empty(entry.shape, dtype=META.get(entry.dtype, torch.int64), device="meta")
        for name, entry in entries.items()
    }
    try:
        loaded, found = load_headers(model, headers)
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"{folder}: the files do not hold the {type(model).__name__} of config.json: its tensors cannot be put "
            f"together ({reason(error)})"
        ) from error
    blocks = f"{decoder_blocks(model)[0]}."
    blocks = (blocks, blocks.removeprefix(f"{model.base_model_prefix}."))
    surplus = sorted(found["unexpected_keys"])
    owners = _owners(model)

    def is_ours(name: str) -> bool:
        return name.startswith(blocks) or name.rpartition(".")[0] in owners

    complaints = [
        _listed("the files lack", sorted(found["missing_keys"])),
        _listed("of another shape are", [_shapes(*mismatch) for mismatch in sorted(found["mismatched_keys"])]),
        _listed("the model has no", [name for name in surplus if found["missing_keys"] or is_ours(name)]),
    ]
    if any(complaints):
        words = "; ".join(complaint for complaint in complaints if complaint)
        raise UserError(f"{folder}: the files do not hold the {type(model).__name__} of config.json: {words}")
    if surplus:
        log.info("%s: %s", folder, _listed("not used by the language model:", surplus))
    return loaded


def _check_types(model: PreTrainedModel, entries: dict[str, Entry], folder: Path) -> None:
    """UserError for a tensor of whole numbers where the model computes with others, or for one that is there twice."""
    state = model.state_dict()
    for name, keys in sources_of(model, list(entries)).items():
        for key in keys:
            if state[name].is_floating_point() and entries[key].dtype not in FLOATING:
                raise UserError(f"{folder}: the tensor {key} is of type {entries[key].dtype}, not floating point")


def _check_tied(model: PreTrainedModel, entries: dict[str, Entry], folder: Path) -> None:
    """UserError for weights that the configuration makes one (embeddings and head) and the files hold as two: some who
    load them take both, some one for both, and perplexity and accuracies would be of different models."""
    sources, files = sources_of(model, list(entries)), TensorFiles(weight_files(folder))
    for one, other in model.all_tied_weights_keys.items():
        keys = [key for name in (one, other) for key in sources.get(name, [])[:1]]
        if len(keys) == 2 and not _same(files[keys[0]], files[keys[1]]):
            raise UserError(
                f"{folder}: config.json ties {one} to {other} (tie_word_embeddings), and the files hold two different "
                f"tensors, {keys[0]} and {keys[1]}: set tie_word_embeddings to false, or remove one of them"
            )


def check_tied_in_memory(model: PreTrainedModel) -> None:
    """The same of a model in memory, whose weights may have been parted."""
    state = dict(model.named_parameters(remove_duplicate=False))
    for one, other in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        if one in state and other in state and state[one] is not state[other] and not _same(state[one], state[other]):
            raise UserError(
                f"the model's configuration ties {one} to {other}, and in memory they differ: set tie_word_embeddings "
                "to false"
            )


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, looked at a part at a time."""
    if one.shape != other.shape:
        return False
    parts = zip(one.detach().split(ROWS), other.detach().split(ROWS), strict=True)
    return all(torch.equal(mine.float(), theirs.to(mine.device).float()) for mine, theirs in parts)


def _owners(model: PreTrainedModel) -> set[str]:
    """The modules with parameters of their own, with and without the prefix that some files leave out."""
    names = {name for name, module in model.named_modules() if module._parameters}
    return names | {name.removeprefix(f"{model.base_model_prefix}.") for name in names}


def _shapes(name: str, in_file: tuple[int, ...], in_model: tuple[int, ...]) -> str:
    return f"{name} ({list(in_file)}, config.json requires {list(in_model)})"


def _listed(what: str, names: list[str]) -> str:
    """ "<what> a, b, c and 17 more"; empty for no names."""
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what} {', '.join(names[:SHOWN])}{more}"
