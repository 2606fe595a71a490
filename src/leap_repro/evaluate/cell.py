"""Put a hardened cell onto its base model, checking the integer counts once more, or export it as a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from leap_repro.errors import UserError
from leap_repro.models.load import load_tokenizer
from leap_repro.models.prunable import prunable_linears
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.store.artifacts import Artifact
from leap_repro.store.masks import check_budget, check_pattern, read_kept_values, unpack_masks


@torch.no_grad()
def apply_cell(model: nn.Module, cell: Artifact) -> int:
    """Write mask and values into the model's prunable weights, in place and matrix by matrix, so that no second copy of
    the model is ever held; returns the kept weights, recounted.

    Raises UserError, naming the cell, if its tensors are not the model's, or count or pattern break its promise.
    """
    name = cell.facts["cell"]
    masks, values = unpack_masks(cell), read_kept_values(cell)
    linears = prunable_linears(model)
    if {linear.name for linear in linears} != set(masks):
        raise UserError(f"cell {name} was made for another model: its tensors are not this model's prunable ones")
    counts: dict[str, tuple[int, int]] = {}
    for linear in linears:
        mask = masks[linear.name].to(linear.weight.device)
        if linear.name in values:
            linear.weight[mask] = values[linear.name].to(linear.weight)
        linear.weight[~mask] = 0
        counts[linear.name] = (int(mask.sum()), mask.numel())
    sparsity, scope = parse_sparsity(cell.facts["sparsity"]), cell.facts["budget_scope"]
    check_budget(name, counts, sparsity, scope, cell.facts.get("neighbours"))
    check_pattern(name, masks, cell.facts["pattern"])
    total = sum(kept for kept, _ in counts.values())
    if total != cell.facts["kept"]:
        raise UserError(f"cell {name} keeps {total} weights, its manifest says {cell.facts['kept']}")
    return total


def export_cell(model: nn.Module, base: Path, cell: Artifact, output: Path) -> None:
    """Save base model + cell as an ordinary Hugging Face checkpoint (safetensors, tokenizer) that any tool can load."""
    apply_cell(model, cell)
    model.save_pretrained(output)
    load_tokenizer(base).save_pretrained(output)
