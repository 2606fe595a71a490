"""Hard masks on disk: one bit per weight, packed, with the shapes in the manifest."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from leap_repro.artifacts import MASK_FILE, Artifact
from leap_repro.budget import kept
from leap_repro.errors import UserError
from leap_repro.patterns import parse_pattern

VALUES_FILE = "values.safetensors"


def pack(keep: Tensor) -> Tensor:
    """A bool mask of any shape as uint8 [ceil(numel / 8)], the first weight in the highest bit."""
    return torch.from_numpy(np.packbits(keep.flatten().cpu().numpy()))


def unpack(packed: Tensor, shape: list[int]) -> Tensor:
    """The bool mask of `shape` that `pack` packed."""
    count = int(np.prod(shape))
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count).astype(bool)).view(*shape)


def unpack_masks(cell: Artifact) -> dict[str, Tensor]:
    """All masks of a hardened cell, {tensor name: bool [out, in]}; UserError if the file is damaged."""
    packed = load_file(cell.file(MASK_FILE))
    return {row["tensor"]: unpack(packed[row["tensor"]], row["shape"]) for row in cell.facts["tensors"]}


def read_values(cell: Artifact) -> dict[str, Tensor]:
    """The moved weights of a hardened cell; empty where the method leaves weights as they are."""
    return load_file(cell.file(VALUES_FILE)) if VALUES_FILE in cell.files else {}


def block_of(rows: list[dict[str, Any]]) -> dict[int, tuple[int, int]]:
    """Per decoder block: (kept, numel), summed over the manifest's tensor rows."""
    totals: dict[int, tuple[int, int]] = {}
    for row in rows:
        kept, numel = totals.get(row["block"], (0, 0))
        totals[row["block"]] = (kept + row["kept"], numel + row["numel"])
    return totals


def check_budget(cell: str, counts: dict[str, tuple[int, int]], sparsity: Fraction, scope: str) -> None:
    """Compare integer counts {tensor: (kept, numel)} with the budget; UserError naming the cell and the tensor.

    `scope` "tensor": every matrix keeps numel - round(s numel). "global": only the total does. "none": nothing is
    promised (the threshold rule), the counts are only recorded.
    """
    if scope == "none":
        return
    if scope == "global":
        counts = {"all tensors together": (sum(k for k, _ in counts.values()), sum(n for _, n in counts.values()))}
    for name, (found, numel) in counts.items():
        expected = kept(sparsity, numel)
        if found != expected:
            raise UserError(f"cell {cell}: {name} keeps {found} of {numel} weights, its budget is {expected}")


def check_pattern(cell: str, masks: dict[str, Tensor], name: str) -> None:
    """UserError naming the cell and the tensor unless masks of an N:M pattern follow it in every group of M inputs.

    "N:M+dense-rows" lets a row keep every weight instead. A pattern of another kind promises no N:M.
    """
    if ":" not in name:
        return
    pattern = parse_pattern(name)
    for tensor, keep in masks.items():
        if keep.shape[1] % pattern.group:
            raise UserError(f"cell {cell}: {tensor} has {keep.shape[1]} inputs, which {pattern.group} does not divide")
        dropped = (~keep).view(keep.shape[0], -1, pattern.group).sum(dim=2)
        wrong = (dropped != pattern.dropped) & ~(keep.all(dim=1, keepdim=True) & pattern.dense_rows)
        if bool(wrong.any()):
            row, group = wrong.nonzero()[0].tolist()
            place = f"row {row} drops {int(dropped[row, group])} from input {group * pattern.group} on"
            raise UserError(f"cell {cell}: {tensor} is not {pattern}: {place}")
