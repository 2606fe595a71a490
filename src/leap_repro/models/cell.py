"""Put a hardened cell onto its base model, checking the integer counts once more."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from leap_repro.errors import UserError
from leap_repro.models.prunable import prunable_linears
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.sparsity.masks import CellMasks, check_budget, check_pattern, put, read_kept_values, unpack_masks
from leap_repro.store.artifacts import Artifact
from leap_repro.store.tensor_files import TensorFiles


def read_cell(cell: Artifact, names: Iterable[str]) -> tuple[CellMasks, TensorFiles, int]:
    """A cell's masks and kept values, each read on access, and how many weights it keeps, recounted.

    Raises UserError, naming the cell, unless its tensors are `names`, and count and pattern are what it promises.
    """
    name, masks = cell.facts["cell"], unpack_masks(cell)
    if set(names) != set(masks):
        raise UserError(f"cell {name} was made for another model: its tensors are not this model's prunable ones")
    counts = {tensor: (int(mask.count_nonzero()), mask.numel()) for tensor, mask in masks.items()}
    sparsity, scope = parse_sparsity(cell.facts["sparsity"]), cell.facts["budget_scope"]
    check_budget(name, counts, sparsity, scope, cell.facts.get("neighbours"))
    check_pattern(name, masks, cell.facts["pattern"])
    total = sum(kept for kept, _ in counts.values())
    if total != cell.facts["kept"]:
        raise UserError(f"cell {name} keeps {total} weights, but its manifest says {cell.facts['kept']}")
    return masks, read_kept_values(cell), total


@torch.no_grad()
def apply_cell(model: nn.Module, cell: Artifact) -> int:
    """Write mask and values into the model's prunable weights, in place and matrix by matrix, so that no second copy of
    the model is ever held; returns the kept weights. UserError as `read_cell`.
    """
    linears = prunable_linears(model)
    masks, values, total = read_cell(cell, [linear.name for linear in linears])
    for linear in linears:
        put(linear.weight, masks[linear.name].to(linear.weight.device), values.get(linear.name))
    return total
