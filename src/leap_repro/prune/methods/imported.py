"""Imported: evaluate a mask that was made elsewhere: published masks, or a checkpoint with zeros.

Two forms are read. An .npz in the form of MaskLLM's published masks has for each matrix an entry "<its name>.mask" with
one bit per weight, packed, the first in the highest bit. A folder has a Hugging Face checkpoint in which dropped
weights are zero (SparseGPT's, PATCH's, ProxSparse's); its new values of kept weights are used. A tensor that no mask
touches, such as an embedding or a norm, must equal the base's: otherwise the score would be of neither model.
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from leap_repro.errors import UserError, reason, shown
from leap_repro.models.checkpoint import COMPRESSED
from leap_repro.prune import declaration
from leap_repro.prune.declaration import Declaration, Tokens
from leap_repro.sparsity.patterns import UNSTRUCTURED, parse_pattern

if TYPE_CHECKING:
    import numpy as np
    from numpy.lib.npyio import NpzFile
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from leap_repro.models.prunable import PrunableLinear
    from leap_repro.prune.job import Job, PrunedCell

log = logging.getLogger(__name__)
BESIDE_A_PASS = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
BESIDE_A_PASS |= {"bos_token_id", "eos_token_id", "pad_token_id", "attn_implementation", "_attn_implementation"}
"""Keys of a model's config.json on which no score depends."""
UNREADABLE = (OSError, ValueError, KeyError, AttributeError, EOFError, RuntimeError, MemoryError)
UNREADABLE += (zipfile.BadZipFile, zlib.error)
"""What reading an .npz may raise: RuntimeError where entries are packed or enciphered in a way that nobody knows."""
INVERTED, NO_LARGER = 0.9, 1.05
"""Ratios of mean magnitudes, of kept to dropped weights: masks below the first are refused, below the second reported.
Random masks have 1."""
CLOSE = 0.005
"""How far the share of zeros may be from the sparsity in the configuration, because public codes round."""


class Options(declaration.Options):
    """The path of the mask, and the pattern that it must have."""

    path: str = Field("", description="an .npz of masks, or the folder of a pruned checkpoint")
    pattern: Literal["unstructured", "2:4", "4:8"] = Field(
        UNSTRUCTURED, description="unstructured, or the N:M pattern, in quotes, that every matrix must have"
    )

    @property
    def facts(self) -> dict[str, str]:
        """The counts are recorded, and the pattern is checked."""
        return {"pattern": self.pattern, "budget_scope": "none"}

    @property
    def files(self) -> list[Path]:
        """What the cell depends on besides the model; UserError if there is nothing at `path`."""
        path = Path(self.path).expanduser()
        if self.path and (path / COMPRESSED).is_file():
            way = "convert it to a checkpoint with `leap-repro unpack`"
            what = f"{shown(self.path)}, a compressed export"
            raise UserError(f"options.path of the module imported is {what}; {way}")
        if self.path and path.is_file() and path.suffix == ".npz":
            return [path]
        if self.path and path.is_dir() and list(path.glob("*.safetensors")):
            return sorted(path.glob("*.safetensors"))
        allowed = "it must be an .npz file, or a folder with safetensors"
        raise UserError(f"options.path of the module imported is {shown(self.path)}; {allowed}")


@dataclass(frozen=True)
class Imported(Declaration[Options]):
    """Reads what another made."""

    moves_weights: bool = True

    @property
    def tokens(self) -> Tokens:
        """None: nothing is calibrated here."""
        return None

    def run(self, job: Job[Options]) -> PrunedCell:
        """Take the masks over, block by block; UserError for those of another model, or of another sparsity."""
        from leap_repro.models.prunable import linears_by_block
        from leap_repro.prune.job import PrunedCell

        (first, *_) = job.options.files
        source = _npz_matrices(job, first) if first.suffix == ".npz" else _checkpoint_matrices(job)
        cell = PrunedCell(job.store, [], dict(job.options.facts))
        linears = linears_by_block(job.model)
        for block, tensors in source:
            job.store.write(f"block-{block:05d}", tensors)
            with job.residency(block):
                cell.log.extend(_row(linear, tensors[f"{linear.name}.keep"]) for linear in linears[block])
        found = 1 - sum(row["kept"] for row in cell.log) / sum(row["numel"] for row in cell.log)
        if abs(found - float(job.sparsity)) > CLOSE:
            raise UserError(
                f"{job.options.path} drops {100 * found:.2f} %, but sparsities has {float(100 * job.sparsity):g} %"
            )
        _refuse_the_smaller_ones(job.options.path, cell.log)
        return cell


def _row(linear: PrunableLinear, keep: Tensor) -> dict[str, Any]:
    """A matrix's line in the log: counts, and the summed sizes of the base's weights that are kept, and of all."""
    sizes = linear.weight.detach().abs().double().cpu()
    row = {"block": linear.block, "tensor": linear.name, "kept": int(keep.sum()), "numel": keep.numel()}
    return row | {"kept_size": float(sizes[keep].sum()), "size": float(sizes.sum())}


def _refuse_the_smaller_ones(path: str, rows: list[dict[str, Any]]) -> None:
    """UserError for masks whose kept weights are smaller than those that they drop, as inverted ones' are; a warning
    where they are no larger, as those of masks whose bits lie in another order."""
    kept, numel, kept_size, size = (sum(row[key] for row in rows) for key in ("kept", "numel", "kept_size", "size"))
    if not 0 < kept < numel or size == kept_size:
        return
    ratio = (kept_size / kept) / ((size - kept_size) / (numel - kept))
    words = f"{path}: the weights that its masks keep are on average {ratio:.2f} times as large as those that they drop"
    if ratio < INVERTED:
        raise UserError(f"{words}: 1 must mean kept, so invert its bits")
    if ratio < NO_LARGER:
        log.warning("%s, as in a random mask: check that the first weight is in the highest bit", words)


def _npz_matrices(job: Job[Options], path: Path) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(block, {"<name>.keep": bool [out, in]}); UserError for entries that are not this model's matrices."""
    import numpy as np
    import torch

    from leap_repro.models.prunable import linears_by_block

    try:
        masks = np.load(path, allow_pickle=False)
        left = set(masks.files)
        for block, linears in linears_by_block(job.model).items():
            tensors = {}
            for linear in linears:
                size = linear.weight.numel()
                dtype, shape = _header(masks, f"{linear.name}.mask")
                if dtype != np.uint8 or shape != ((size + 7) // 8,):
                    found = f"{dtype} {list(shape)}"
                    raise UserError(f"{path}: the mask of {linear.name} is {found}, not {size} packed bits")
                bits = masks[f"{linear.name}.mask"]
                keep = torch.from_numpy(np.unpackbits(bits, count=size).astype(bool))
                tensors[f"{linear.name}.keep"] = keep.view(linear.weight.shape)
                left.discard(f"{linear.name}.mask")
            yield block, tensors
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(f"{path} is not an .npz of a mask for each matrix of the model: {reason(error)}") from error
    if left:
        raise UserError(f"{path} has masks of matrices that are not prunable in the model: {sorted(left)[:3]}")


def _header(masks: NpzFile, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape of an entry, before as much memory is asked for; KeyError or ValueError if there is none."""
    from numpy.lib import format as npy

    assert masks.zip is not None, "it is open"
    with masks.zip.open(f"{name}.npy") as file:
        reads = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, _, dtype = reads[npy.read_magic(file)](file)
    return dtype, shape


def _checkpoint_matrices(job: Job[Options]) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(block, {"<name>.keep", and "<name>.values" where weights were moved}) of a checkpoint with zeros."""
    import torch

    from leap_repro.models.prunable import decoder_blocks, linears_by_block, prunable_linears
    from leap_repro.models.stream import stream_model

    dtype = str(next(job.model.parameters()).dtype).removeprefix("torch.")
    theirs, residency = stream_model(Path(job.options.path).expanduser(), dtype)
    pruned = {linear.name: linear for linear in prunable_linears(theirs)}
    shapes = [{n.name: n.weight.shape for n in prunable_linears(model)} for model in (job.model, theirs)]
    if shapes[0] != shapes[1]:
        raise UserError(f"{job.options.path} is not a pruned {type(job.model).__name__} of this size")
    _refuse_other_shape(job, theirs)
    _refuse_other(job, "", job.model, theirs, skip=f"{decoder_blocks(job.model)[0]}.")
    for block, linears in linears_by_block(job.model).items():
        with job.residency(block), residency(block):
            name = f"{decoder_blocks(job.model)[0]}.{block}"
            touched = {linear.parameter for linear in linears}
            own, other = (model.get_submodule(name) for model in (job.model, theirs))
            _refuse_other(job, f"{name}.", own, other, touched=touched)
            tensors = {}
            for linear in linears:
                weight = pruned[linear.name].weight.detach()
                keep = _kept(weight, job.options.pattern)
                tensors[f"{linear.name}.keep"] = keep.cpu()
                if not torch.equal(weight[keep], linear.weight[keep]):
                    tensors[f"{linear.name}.values"] = weight.clone().cpu()
        yield block, tensors


def _kept(weight: Tensor, pattern: str) -> Tensor:
    """Where a weight is not zero; in a group of an N:M pattern that has fewer than it may keep, its first zeros too:
    the base has weights that are 0 themselves."""
    keep, found = weight != 0, parse_pattern(pattern)
    if found is None or weight.shape[1] % found.group:
        return keep
    groups = keep.view(len(weight), -1, found.group)
    first = groups.int().argsort(dim=2, descending=True, stable=True)[..., : found.group - found.dropped]
    return (groups | groups.new_zeros(groups.shape).scatter_(2, first, True)).view_as(keep)


def _refuse_other_shape(job: Job[Options], theirs: PreTrainedModel) -> None:
    """UserError for a parameter that only one of the two has, or a setting of a pass that differs: scored with the
    base's, the number would be nobody's."""
    names = [{name for name, _ in model.named_parameters()} for model in (job.model, theirs)]
    if names[0] != names[1]:
        raise UserError(
            f"{job.options.path} is not a pruned version of the model: only one of them has {min(names[0] ^ names[1])}"
        )
    mine, other = job.model.config.to_dict(), theirs.config.to_dict()
    for key in sorted((mine.keys() | other.keys()) - BESIDE_A_PASS):
        if mine.get(key) != other.get(key):
            said = f"{key} is {other.get(key)!r}, the model's {mine.get(key)!r}"
            raise UserError(f"{job.options.path} is not a pruned version of the model: its config.json's {said}")


def _refuse_other(
    job: Job[Options],
    prefix: str,
    ours: nn.Module,
    theirs: nn.Module,
    skip: str = "-",
    touched: Set[str] = frozenset(),
) -> None:
    """UserError for a parameter that no mask touches and that is not the base's."""
    import torch

    others = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if name.startswith(skip) or f"{prefix}{name}" in touched:
            continue
        mine, other = _real(ours, name, parameter), _real(theirs, name, others[name])
        if mine is not None and other is not None and not torch.equal(mine, other.to(mine)):
            raise UserError(f"{job.options.path} is not a pruned version of the model: its {prefix}{name} is another")


def _real(model: nn.Module, name: str, parameter: Tensor) -> Tensor | None:
    """The parameter, read from the model's checkpoint if it is not in memory (the head, while blocks are streamed)."""
    from transformers import PreTrainedModel

    from leap_repro.models.checkpoint import weight_files
    from leap_repro.models.layout import sources_of
    from leap_repro.store.tensor_files import TensorFiles

    if not parameter.is_meta:
        return parameter.detach()
    assert isinstance(model, PreTrainedModel), "a block's parameters are in memory while they are compared"
    files = TensorFiles(weight_files(Path(str(model.name_or_path))))
    keys = sources_of(model, list(files)).get(name, [])
    return files[keys[0]] if len(keys) == 1 else None


METHOD = Imported(options=Options)
