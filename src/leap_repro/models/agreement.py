"""Whether a checkpoint holds the model that its configuration describes: every tensor, by name and shape.

What is missing transformers draws at random, with a warning that no pipeline reads. So the files' headers are loaded
as transformers itself would load the weights, renamings and fused experts included, but on the meta device, where it
costs milliseconds for a model of any size.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from leap_repro.errors import UserError, reason
from leap_repro.models.checkpoint import Entry, tensors
from leap_repro.models.prunable import decoder_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
SHOWN = 3
"""How many names a sentence gives of a longer list."""
META = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_headers(model: PreTrainedModel, entries: dict[str, Entry]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model of the same configuration, loaded from headers alone, and what transformers says of the loading:
    `missing_keys`, `unexpected_keys`, `mismatched_keys`. ValueError or RuntimeError if tensors cannot be put together.
    """
    state = {
        name: torch.empty(entry.shape, dtype=META.get(entry.dtype, torch.int64), device="meta")
        for name, entry in entries.items()
    }
    with _quietly():
        return type(model).from_pretrained(
            None,
            config=model.config,
            state_dict=state,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )


def check_agreement(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """UserError that names tensors unless the files in `folder` hold `model` (which may be on the meta device).

    Tensors outside the decoder blocks that the model has no use for, as a vision tower's, are allowed and logged.
    Returns the model as loaded from headers, which knows how its tensors are called in the files.
    """
    try:
        loaded, found = load_headers(model, tensors(folder))
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"{folder}: the files do not hold the {type(model).__name__} of config.json: its tensors cannot be put "
            f"together ({reason(error)})"
        ) from error
    blocks = f"{decoder_blocks(model)[0]}."
    surplus = sorted(found["unexpected_keys"])
    complaints = [
        _listed("the files lack", sorted(found["missing_keys"])),
        _listed("of another shape are", [_shapes(*mismatch) for mismatch in sorted(found["mismatched_keys"])]),
        _listed("the model has no", [name for name in surplus if found["missing_keys"] or name.startswith(blocks)]),
    ]
    if any(complaints):
        words = "; ".join(complaint for complaint in complaints if complaint)
        raise UserError(f"{folder}: the files do not hold the {type(model).__name__} of config.json: {words}")
    if surplus:
        log.info("%s: %s", folder, _listed("not used by the language model:", surplus))
    return loaded


def _shapes(name: str, in_file: tuple[int, ...], in_model: tuple[int, ...]) -> str:
    return f"{name} ({list(in_file)}, config.json asks for {list(in_model)})"


def _listed(what: str, names: list[str]) -> str:
    """ "<what> a, b, c and 17 more"; empty for no names."""
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what} {', '.join(names[:SHOWN])}{more}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' own report and progress bar: we say it in one sentence."""
    from transformers.utils import logging as theirs

    level, bar = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bar:
            theirs.enable_progress_bar()
