"""From what a pruner left (masks or logits) to hard masks that meet an integer budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.sparsity.budget import kept
from leap_repro.sparsity.patterns import TWO_OF_FOUR, parse_pattern
from leap_repro.sparsity.tiles import spread, tile_sums, tiles_to_keep_dense

RULES = ("exact", "threshold")
AS_PRUNED = "as pruned"


@dataclass(frozen=True)
class Hardened:
    """Bool masks [out, in] by tensor name; which `rule` made them; what their counts promise (`scope`, see
    `masks.check_budget`); for tiles the weights that one dense tile fewer and one more would keep (`neighbours`)."""

    masks: dict[str, Tensor]
    rule: str
    scope: str
    neighbours: list[int] = field(default_factory=list)


def harden(kinds: dict[str, dict[str, Tensor]], pattern: str, scope: str, sparsity: Fraction, rule: str) -> Hardened:
    """Masks from what a pruner left, {kind: {tensor name: tensor}}; UserError for a rule or logits that are none.

    "logits": one per weight (LEAP). "tiles": one per tile over a 2:4 mask (PATCH). "patterns": one per 2:4 pattern and
    group (MaskLLM; PATCH's 2:4 mask where that is learned). "keep": masks (one-shot methods; PATCH's frozen 2:4 mask).
    """
    if rule not in RULES:
        raise UserError(f"hardening rule {rule!r} is not one of {RULES}")
    for kind in ("logits", "tiles", "patterns"):
        _require_finite(kinds[kind])
    promised = "none" if rule == "threshold" else scope
    if kinds["logits"]:
        return Hardened(harden_logits(kinds["logits"], sparsity, rule, scope == "tensor"), rule, promised)
    two_four = kinds["keep"] or {name: likeliest(theta) for name, theta in kinds["patterns"].items()}
    if not kinds["tiles"]:
        return Hardened(two_four, "likeliest pattern" if kinds["patterns"] else AS_PRUNED, scope)
    masks, neighbours = harden_tiles(kinds["tiles"], two_four, parse_pattern(pattern).dense_tiles, sparsity, rule)
    return Hardened(masks, rule, promised, neighbours)


def likeliest(theta: Tensor) -> Tensor:
    """The 2:4 mask [out, in] of each group's largest logit; `theta` is [out, in / 4, 6]."""
    return torch.tensor(TWO_OF_FOUR, dtype=torch.bool)[theta.argmax(dim=-1)].flatten(1)


def harden_tiles(
    tiles: dict[str, Tensor], two_four: dict[str, Tensor], size: int, sparsity: Fraction, rule: str
) -> tuple[dict[str, Tensor], list[int]]:
    """Dense tiles over 2:4 masks: "threshold" keeps the tiles with theta > 0 dense; "exact" the tiles of largest theta
    (of all matrices; ties: the earlier), as many as bring the total nearest to the budget.

    Returns the masks, and what one dense tile fewer and one more would keep ("exact" only).
    """
    names, neighbours = list(tiles), []
    theta = torch.cat([tiles[name].flatten().float() for name in names])
    dense = theta > 0
    if rule == "exact":
        gains = torch.cat([tile_sums(~two_four[name], size).flatten() for name in names])
        base, numel = (sum(int(f(two_four[name])) for name in names) for f in (torch.sum, torch.numel))
        ranking = torch.sort(theta, descending=True, stable=True).indices
        count = tiles_to_keep_dense(ranking, gains, base, kept(sparsity, numel))
        dense = torch.zeros_like(dense).index_fill_(0, ranking[:count], True)
        neighbours = [
            base + int(gains[ranking[:near]].sum()) for near in (count - 1, count + 1) if 0 <= near <= len(theta)
        ]
    parts = dense.split([tiles[name].numel() for name in names])
    masks = {
        name: two_four[name] | spread(part.view_as(tiles[name]), size, tuple(two_four[name].shape))
        for name, part in zip(names, parts, strict=True)
    }
    return masks, neighbours


def _require_finite(logits: dict[str, Tensor]) -> None:
    for name, theta in logits.items():
        if not bool(torch.isfinite(theta).all()):
            raise UserError(f"the logits of {name} are not finite")


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


def harden_logits(
    logits: dict[str, Tensor], sparsity: Fraction, rule: str, per_tensor: bool = False
) -> dict[str, Tensor]:
    """Bool masks from one logit per weight: "threshold" keeps theta > 0; "exact" keeps the top N - round(s N) of all
    tensors together, or of each one by itself (`per_tensor`)."""
    if rule == "threshold":
        return {name: theta > 0 for name, theta in logits.items()}
    if per_tensor:
        return {name: harden_logits({name: theta}, sparsity, rule)[name] for name, theta in logits.items()}
    flat = torch.cat([theta.flatten() for theta in logits.values()])
    keep = top_k(flat, kept(sparsity, flat.numel()))
    parts = keep.split([theta.numel() for theta in logits.values()])
    return {name: part.view_as(theta) for (name, theta), part in zip(logits.items(), parts, strict=True)}
