"""Load a packed export as a model that runs packed: its matrices never lie in memory with their zeros.

The model is built without weights; what is not pruned is read into it as it is, and of each pruned tensor the parts are
taken over, one tensor at a time. All is copied: a tensor that is a view of its file keeps the pages around it in
memory, too, and would have to be read again if the system took them away.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.export.forms import Packed
from leap_repro.export.index import Index, Parts, said_by, verified
from leap_repro.export.places import Place, find_places
from leap_repro.models.layout import load_headers, load_tensors
from leap_repro.models.load import DTYPES
from leap_repro.models.prunable import prunable_linears
from leap_repro.models.stream import skeleton
from leap_repro.runtime.kernels import PackedMatrix
from leap_repro.runtime.linear import put_packed
from leap_repro.runtime.model import as_packed
from leap_repro.sparsity.masks import unpack
from leap_repro.store.tensor_files import TensorFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_packed(folder: Path, index: Index, empty: PreTrainedModel, dtype: torch.dtype | None) -> PreTrainedModel:
    """The model of a packed export, on the CPU; `empty` is that of its config.json on the meta device, `dtype` the type
    of its weights and activations if that is not config.json's. Quantised values stay quantised.

    Raises UserError for an export of another format, if a file is damaged, or if the weights are not those of
    config.json.
    """
    if index.format != Packed.name:
        raise UserError(f"{folder} is of format {index.format}, but run='packed' needs {Packed.name}: use run='dense'")
    files = {name: TensorFiles([verified(folder, index, name)]) for name in index.files}
    whole = dict(_whole(index, files))
    dtype = dtype or empty.dtype
    if dtype not in DTYPES.values():
        raise UserError(
            f"{folder} is of type {dtype}, but run='packed' computes in {[*DTYPES]}: give one of them as dtype"
        )
    places = _places(folder, index, empty, whole)
    cpu = torch.device("cpu")
    model = skeleton(folder, dtype, cpu)
    load_tensors(model, whole, cpu)
    model.tie_weights()
    matrices: dict[str, PackedMatrix] = {}
    for key, entry in index.tensors.items():
        with said_by(folder / entry["file"]):
            parts = {part: files[entry["file"]][f"{key}.{part}"] for part in index.form.parts}
            parts["kept"] = parts["kept"].clone()
            matrices |= _matrices(key, index, parts, places[key], model.dtype)
    put_packed(model, {linear.name: linear.module for linear in prunable_linears(model)}, matrices)
    return as_packed(model)


def _whole(index: Index, files: dict[str, TensorFiles]) -> Iterator[tuple[str, Tensor]]:
    """The tensors that are not in parts."""
    parts = {f"{key}.{part}" for key in index.tensors for part in index.form.parts}
    for tensors in files.values():
        yield from ((key, tensors[key].clone()) for key in tensors if key not in parts)


def refuse_other(folder: Path, found: dict[str, set[str]]) -> None:
    """UserError if transformers says that a model was loaded from other weights than its own."""
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[what]:
            raise UserError(f"{folder}: its weights are not those of config.json ({what}: {sorted(found[what])[:3]})")


def _places(folder: Path, index: Index, empty: PreTrainedModel, whole: dict[str, Tensor]) -> dict[str, list[Place]]:
    """{key: the matrices in it}, from the headers alone; UserError if they are not those of the model, all in parts."""
    headers = {key: torch.empty_like(tensor, device="meta") for key, tensor in whole.items()}
    for key, entry in index.tensors.items():
        shape = entry["shape"]
        stored = [*shape[:-2], shape[-1], shape[-2]] if entry.get("transposed") else shape
        headers[key] = torch.empty(stored, dtype=empty.dtype, device="meta")
    with said_by(folder):
        loaded, found = load_headers(empty, headers)
    refuse_other(folder, found)
    places: dict[str, list[Place]] = {key: [] for key in index.tensors}
    for place in find_places(loaded, set(headers)):
        if place.key not in places:
            raise UserError(f"{folder}: {place.key} is not packed: use run='dense'")
        places[place.key].append(place)
    for key, matrices in places.items():
        if not matrices:
            raise UserError(f"{folder}: {key} is packed, but it is not a matrix that can run packed: use run='dense'")
    return places


def _matrices(key: str, index: Index, parts: Parts, places: list[Place], dtype: torch.dtype) -> dict[str, PackedMatrix]:
    """{name: matrix} of all that one tensor holds; those of a mixture's experts share its memory. Values keep the
    file's type where `dtype`, the model's, can hold them, else they are converted."""
    shape = index.tensors[key]["shape"]
    if places[0].transposed and not index.tensors[key].get("transposed"):
        tensor = index.form.decode(parts, shape).mT.contiguous()
        parts = index.form.encode(key, tensor, unpack(parts["mask"], shape).mT)
        shape = list(tensor.shape)
    kept, scales = parts["kept"], parts.get("scales")
    if scales is not None:
        scales = scales.float()[:, None]
    elif torch.promote_types(kept.dtype, dtype) != dtype:
        kept = kept.to(dtype)
    packed = PackedMatrix.from_file(kept, parts["mask"], shape, scales, name=key)
    if len(places) == 1 and places[0].is_whole(packed.shape[0]):
        return {places[0].linear.name: packed}
    matrices = packed.parted([place.rows for place in places])
    return {place.linear.name: matrix for place, matrix in zip(places, matrices, strict=True)}
