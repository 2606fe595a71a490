"""A sparse cell on disk: one bit per weight, packed, with the shapes in the manifest, and, where the method moves
weights, the values of those that stay and of no others. Both are read matrix by matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.sparsity.budget import kept
from leap_repro.sparsity.patterns import parse_pattern
from leap_repro.sparsity.tiles import dense_tiles
from leap_repro.store.artifacts import MASK_FILE, Artifact
from leap_repro.store.tensor_files import TensorFiles

VALUES_STEM = "values-"
"""How the names of the files with kept values begin; there is one file per block."""


@torch.no_grad()
def put(weight: Tensor, mask: Tensor, moved: Tensor | None) -> None:
    """Zero what the mask [out, in] drops, in place; `moved` has new values for those that stay, in the mask's order."""
    if moved is not None:
        weight[mask] = moved.to(weight)
    weight[~mask] = 0


def pack(keep: Tensor) -> Tensor:
    """A bool mask of any shape as uint8 [ceil(numel / 8)], the first weight in the highest bit."""
    return torch.from_numpy(np.packbits(keep.flatten().cpu().numpy()))


def unpack(packed: Tensor, shape: list[int]) -> Tensor:
    """The bool mask of `shape` that `pack` packed."""
    count = int(np.prod(shape))
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count).astype(bool)).view(*shape)


class CellMasks(Mapping[str, Tensor]):
    """The masks of a hardened cell, {tensor name: bool [out, in]}, each unpacked on access."""

    def __init__(self, cell: Artifact) -> None:
        self._packed = TensorFiles([cell.file(MASK_FILE)])
        self._shapes = {row["tensor"]: row["shape"] for row in cell.facts["tensors"]}

    def __getitem__(self, name: str) -> Tensor:
        return unpack(self._packed[name], self._shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def unpack_masks(cell: Artifact) -> CellMasks:
    """All masks of a hardened cell; UserError if the file is damaged."""
    return CellMasks(cell)


def read_kept_values(cell: Artifact) -> TensorFiles:
    """Per tensor the weights that stay [kept], in the mask's order; empty where the method leaves weights as they are.

    UserError if a file is damaged.
    """
    return TensorFiles(cell.file(name) for name in sorted(cell.files) if name.startswith(VALUES_STEM))


def block_of(rows: list[dict[str, Any]]) -> dict[int, tuple[int, int]]:
    """Per decoder block: (kept, numel), summed over the manifest's tensor rows."""
    totals: dict[int, tuple[int, int]] = {}
    for row in rows:
        kept, numel = totals.get(row["block"], (0, 0))
        totals[row["block"]] = (kept + row["kept"], numel + row["numel"])
    return totals


def check_budget(
    cell: str,
    counts: dict[str, tuple[int, int]],
    sparsity: Fraction,
    scope: str,
    neighbours: list[int] | None = None,
) -> None:
    """Compare integer counts {tensor: (kept, numel)} with the budget; UserError naming the cell and the tensor.

    `scope` "tensor": every matrix keeps numel - round(s numel). "global": only the total does. "tiles": the total is as
    near to it as whole tiles allow, neither of its `neighbours` (one dense tile fewer, one more) is nearer. "none":
    nothing is promised (the threshold rule), the counts are only recorded.
    """
    if scope == "none":
        return
    if scope == "tiles":
        _check_tiles(cell, counts, sparsity, neighbours or [])
        return
    if scope == "global":
        counts = {"all tensors together": (sum(k for k, _ in counts.values()), sum(n for _, n in counts.values()))}
    for name, (found, numel) in counts.items():
        expected = kept(sparsity, numel)
        if found != expected:
            raise UserError(f"cell {cell}: {name} keeps {found} of {numel} weights, its budget is {expected}")


def _check_tiles(cell: str, counts: dict[str, tuple[int, int]], sparsity: Fraction, neighbours: list[int]) -> None:
    found, numel = sum(k for k, _ in counts.values()), sum(n for _, n in counts.values())
    expected = kept(sparsity, numel)
    for other in neighbours:
        if abs(other - expected) < abs(found - expected):
            near = f"another number of dense tiles would keep {other}, which is nearer to its budget of {expected}"
            raise UserError(f"cell {cell}: all tensors together keep {found} of {numel} weights; {near}")


def check_pattern(cell: str, masks: Mapping[str, Tensor], name: str) -> None:
    """UserError naming the cell and the tensor unless masks of an N:M pattern follow it in every group of M inputs.

    "N:M+dense-rows" and "N:M+dense-tiles-SIZE" let a row or a square tile keep every weight instead.
    A pattern of another kind promises no N:M.
    """
    pattern = parse_pattern(name) if ":" in name else None
    if pattern is None:
        return
    for tensor, keep in masks.items():
        if keep.shape[1] % pattern.group:
            raise UserError(f"cell {cell}: {tensor} has {keep.shape[1]} inputs, which {pattern.group} does not divide")
        exempt = dense_tiles(keep, pattern.dense_tiles) if pattern.dense_tiles else torch.zeros_like(keep)
        exempt = exempt.view(keep.shape[0], -1, pattern.group).all(dim=2)
        dropped = (~keep).view(torch.uint8).view(keep.shape[0], -1, pattern.group).sum(dim=2, dtype=torch.int16)
        wrong = (dropped != pattern.dropped) & ~(keep.all(dim=1, keepdim=True) & pattern.dense_rows) & ~exempt
        if bool(wrong.any()):
            row, group = wrong.nonzero()[0].tolist()
            place = f"row {row} drops {int(dropped[row, group])} from input {group * pattern.group} on"
            raise UserError(f"cell {cell}: {tensor} is not {pattern}: {place}")
