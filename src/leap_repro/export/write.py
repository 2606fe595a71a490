"""Write a pruned checkpoint, file by file, so that a model needs no more memory than its largest file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.export.blocks import PrunedBlocks
from leap_repro.export.card import card, in_form
from leap_repro.export.folder import new_folder
from leap_repro.export.forms import DENSE, form_of
from leap_repro.export.index import INDEX_FILE, PREFIX, Index, read_file, read_index
from leap_repro.export.lineage import Lineage
from leap_repro.models.agreement import check_agreement
from leap_repro.models.cell import read_cell
from leap_repro.models.checkpoint import CONFIG, checkpoint_files, weight_files
from leap_repro.models.examine import empty_model
from leap_repro.models.load import DTYPES
from leap_repro.models.prunable import prunable_linears
from leap_repro.store.tensor_files import TensorFiles, save_tensors

CARD = "README.md"
REMOTE_CODE = "auto_map"
"""The key that names Python files beside a configuration: they are not part of a checkpoint, so neither is it."""


def export_cell(
    base: Path,
    lineage: Lineage,
    output: Path,
    dtype: str | None = None,
    form: str = DENSE,
    values: str | None = None,
) -> None:
    """Write the checkpoint in `base`, pruned as the lineage's cell says, into the new folder `output`, whole or not at
    all, with a model card; `dtype` converts its tensors, which otherwise keep their types; `values` quantises what the
    form `packed` keeps of pruned ones.

    Raises UserError if the cell is another model's or breaks its promise, if the form cannot hold it, or if `output`
    holds something already.
    """
    index = None if form == DENSE and values is None else Index(form_of(form, values).name, {}, {}, values=values)
    model = check_agreement(empty_model(base), base)
    masks, moved, _ = read_cell(lineage.cell, [linear.name for linear in prunable_linears(model)])
    files = weight_files(base)
    blocks = PrunedBlocks(model, set(TensorFiles(files)), masks, moved)
    with new_folder(output) as folder:
        for file in files:
            tensors, kept, metadata = _pruned_tensors(file, blocks, dtype)
            if index:
                tensors = _in_parts(tensors, kept, file.name, index, blocks.transposed if values else ())
            save_tensors(tensors, folder / f"{PREFIX if index else ''}{file.name}", metadata=metadata)
        if index:
            index.write(folder)
        for path in set(checkpoint_files(base)) - set(files):
            _write_companion(path, folder / path.name, dtype)
        text = card(lineage, form, weight_bytes(base), weight_bytes(folder), index)
        (folder / CARD).write_text(text, encoding="utf-8")


def unpack(folder: Path, output: Path) -> None:
    """Write the dense checkpoint that a compressed export stands for into the new folder `output`: the files, to the
    byte, that a dense export of the same cell has.

    Raises UserError for a damaged export, or if `output` holds something already.
    """
    index = read_index(folder)
    with new_folder(output) as target:
        for name in index.files:
            tensors, metadata = read_file(folder, index, name)
            save_tensors(tensors, target / name.removeprefix(PREFIX), metadata=metadata)
        for path in folder.iterdir():
            if path.is_file() and path.name not in {*index.files, INDEX_FILE, CARD}:
                shutil.copyfile(path, target / path.name)
        if (folder / CARD).is_file():
            text = in_form((folder / CARD).read_text(encoding="utf-8"), DENSE, weight_bytes(target))
            (target / CARD).write_text(text, encoding="utf-8")


def weight_bytes(folder: Path) -> int:
    """Bytes of the weight files of a checkpoint, or of a compressed export."""
    compressed = list(folder.glob(f"{PREFIX}*.safetensors"))
    return sum(path.stat().st_size for path in compressed or weight_files(folder))


@torch.no_grad()
def _pruned_tensors(
    source: Path, blocks: PrunedBlocks, dtype: str | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, str] | None]:
    """({key: tensor}, {key: mask} of the pruned ones, metadata) of one weight file."""
    with safe_open(source, framework="pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.offset_keys()}, file.metadata()
    kept: dict[str, Tensor] = {}
    for block in sorted({blocks.places[key] for key in tensors.keys() & blocks.places.keys()}):
        masks, values, moved = blocks.changes(block)
        for key in tensors.keys() & masks.keys():
            base = tensors[key]
            pruned = values[key].where(moved[key], base).to(base.dtype) if key in values else base
            tensors[key], kept[key] = pruned.masked_fill(~masks[key], 0), masks[key].contiguous()
    if dtype:
        tensors = {key: t.to(DTYPES[dtype]) if t.is_floating_point() else t for key, t in tensors.items()}
    _refuse_not_finite(tensors, kept, source)
    return {key: tensor.contiguous() for key, tensor in tensors.items()}, kept, metadata


def _refuse_not_finite(tensors: dict[str, Tensor], pruned: Iterable[str], source: Path) -> None:
    """UserError, by name, for a tensor as it would be written that holds NaN or infinity: one that the base holds, or
    a weight beyond what the type can say."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            what = f"the pruned weights of {key}" if key in pruned else f"the weights of {key}"
            raise UserError(f"{what}, from {source}, are not finite in {tensor.dtype}")


def _in_parts(
    tensors: dict[str, Tensor],
    kept: dict[str, Tensor],
    file: str,
    index: Index,
    transposed: Collection[str] = (),
) -> dict[str, Tensor]:
    """The tensors of one file with the pruned ones in parts, which the index notes; `transposed` are those that have
    inputs before outputs."""
    form = index.form
    written = {key: tensor for key, tensor in tensors.items() if key not in kept}
    for key, mask in sorted(kept.items()):
        parts = index.encode(key, f"{PREFIX}{file}", tensors[key], mask, key in transposed)
        written |= {f"{key}.{part}": tensor.contiguous() for part, tensor in parts.items()}
    if len(written) != len(tensors) + len(kept) * (len(form.parts) - 1):
        raise UserError(f"{file} has tensors called like the parts {form.parts} of others: it cannot be {form.name}")
    return written


def _write_companion(source: Path, target: Path, dtype: str | None) -> None:
    """A configuration, or a file of the tokenizer or processor: as it is, but for what would no longer be true."""
    text = json.loads(source.read_text(encoding="utf-8")) if source.suffix == ".json" else None
    changed = dict(_without_untruths(text, source.name, dtype)) if isinstance(text, dict) else text
    if changed == text:
        shutil.copyfile(source, target)
    else:
        target.write_text(json.dumps(changed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_untruths(values: dict, name: str, dtype: str | None) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if key == REMOTE_CODE:
            continue
        yield key, dtype if dtype and name == CONFIG and key in ("dtype", "torch_dtype") else value
