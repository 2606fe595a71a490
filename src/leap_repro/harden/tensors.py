"""From what a pruner left (masks or logits) to hard masks that meet an integer budget."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from leap_repro.budget import kept
from leap_repro.errors import UserError

RULES = ("exact", "threshold")


def top_k(theta: Tensor, count: int) -> Tensor:
    """Keep exactly the `count` largest of a flat float32 [N]; of equal logits the earlier position is kept.

    One selection by k-th value and one pass over the ties, so it costs no full sort at billions of weights.
    """
    if count == 0:
        return torch.zeros_like(theta, dtype=torch.bool)
    limit = theta.kthvalue(theta.numel() - count + 1).values
    keep = theta > limit
    ties = torch.nonzero(theta == limit).flatten()
    keep[ties[: count - int(keep.sum())]] = True
    return keep


def harden_logits(logits: dict[str, Tensor], sparsity: Fraction, rule: str) -> dict[str, Tensor]:
    """Bool masks from logits: "exact" keeps the top N - round(s N) over all tensors; "threshold" keeps theta > 0.

    Raises UserError for another rule, or for logits that are not finite.
    """
    if rule not in RULES:
        raise UserError(f"hardening rule {rule!r} is not one of {RULES}")
    for name, theta in logits.items():
        if not bool(torch.isfinite(theta).all()):
            raise UserError(f"the logits of {name} are not finite")
    if rule == "threshold":
        return {name: theta > 0 for name, theta in logits.items()}
    flat = torch.cat([theta.flatten() for theta in logits.values()])
    keep = top_k(flat, kept(sparsity, flat.numel()))
    parts = keep.split([theta.numel() for theta in logits.values()])
    return {name: part.view_as(theta) for (name, theta), part in zip(logits.items(), parts, strict=True)}
