"""From what a pruner left (masks or logits) to hard masks that meet an integer budget.

Masks are made when they are asked for, each anew, and what is compared with all others is read tensor by tensor: of a
model's logits or masks no more than one matrix is in memory, and one logit per tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.sparsity.budget import kept
from leap_repro.sparsity.patterns import TWO_OF_FOUR, parse_pattern
from leap_repro.sparsity.selection import cut_at, require_logits
from leap_repro.sparsity.tiles import spread, tile_sums, tiles_to_keep_dense

RULES = ("exact", "threshold")
AS_PRUNED = "as pruned"


class Made(Mapping[str, Tensor]):
    """{tensor name: `make(name, source[name])`}, made on each access."""

    def __init__(self, source: Mapping[str, Tensor], make: Callable[[str, Tensor], Tensor]) -> None:
        self._source, self._make = source, make

    def __getitem__(self, name: str) -> Tensor:
        return self._make(name, self._source[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._source)

    def __len__(self) -> int:
        return len(self._source)


@dataclass(frozen=True)
class Hardened:
    """Bool masks [out, in] by tensor name; which `rule` made them; what their counts promise (`scope`, see
    `masks.check_budget`); for tiles the weights that one dense tile fewer and one more would keep (`neighbours`)."""

    masks: Mapping[str, Tensor]
    rule: str
    scope: str
    neighbours: list[int] = field(default_factory=list)


def harden(
    kinds: Mapping[str, Mapping[str, Tensor]], pattern: str, scope: str, sparsity: Fraction, rule: str
) -> Hardened:
    """Masks from what a pruner left, {kind: {tensor name: tensor}}; UserError for a rule or logits that are none.

    "logits": one per weight (LEAP). "tiles": one per tile over a 2:4 mask (PATCH). "patterns": one per 2:4 pattern and
    group (MaskLLM; PATCH's 2:4 mask where that is learned). "keep": masks (one-shot methods; PATCH's frozen 2:4 mask).
    """
    if rule not in RULES:
        raise UserError(f"hardening rule {rule!r} is not one of {RULES}")
    for kind in ("logits", "tiles", "patterns"):
        for name, theta in kinds[kind].items():
            require_logits(name, theta)
    promised = "none" if rule == "threshold" else scope
    if kinds["logits"]:
        return Hardened(harden_logits(kinds["logits"], sparsity, rule, scope == "tensor"), rule, promised)
    two_four = kinds["keep"] or Made(kinds["patterns"], lambda _, theta: likeliest(theta))
    if not kinds["tiles"]:
        return Hardened(two_four, "likeliest pattern" if kinds["patterns"] else AS_PRUNED, scope)
    tiled = parse_pattern(pattern)
    if tiled is None:
        raise UserError(f"logits of tiles need a pattern of dense tiles, not {pattern!r}")
    masks, neighbours = harden_tiles(kinds["tiles"], two_four, tiled.dense_tiles, sparsity, rule)
    return Hardened(masks, rule, promised, neighbours)


def likeliest(theta: Tensor) -> Tensor:
    """The 2:4 mask [out, in] of each group's largest logit; `theta` is [out, in / 4, 6]."""
    return torch.tensor(TWO_OF_FOUR, dtype=torch.bool)[theta.argmax(dim=-1)].flatten(1)


def harden_tiles(
    tiles: Mapping[str, Tensor], two_four: Mapping[str, Tensor], size: int, sparsity: Fraction, rule: str
) -> tuple[Mapping[str, Tensor], list[int]]:
    """Dense tiles over 2:4 masks: "threshold" keeps the tiles with theta > 0 dense; "exact" the tiles of largest theta
    (of all matrices; ties: the earlier), as many as bring the total nearest to the budget.

    Returns the masks, and what one dense tile fewer and one more would keep ("exact" only).
    """
    neighbours: list[int] = []
    theta = torch.cat([tile.flatten().float() for tile in tiles.values()])
    dense = theta > 0
    if rule == "exact":
        gains, base, numel = _gains(tiles, two_four, size)
        ranking = torch.sort(theta, descending=True, stable=True).indices
        count = tiles_to_keep_dense(ranking, gains, base, kept(sparsity, numel))
        dense = torch.zeros_like(dense).index_fill_(0, ranking[:count], True)
        neighbours = [
            base + int(gains[ranking[:near]].sum()) for near in (count - 1, count + 1) if 0 <= near <= len(theta)
        ]
    parts = dict(zip(tiles, dense.split([tile.numel() for tile in tiles.values()]), strict=True))

    def with_dense_tiles(name: str, tile: Tensor) -> Tensor:
        mask = two_four[name]
        return mask | spread(parts[name].view_as(tile), size, tuple(mask.shape))

    return Made(tiles, with_dense_tiles), neighbours


def _gains(tiles: Mapping[str, Tensor], two_four: Mapping[str, Tensor], size: int) -> tuple[Tensor, int, int]:
    """What each tile would add if it were dense [tiles], what the 2:4 masks keep anyway, and of how many weights."""
    gains, base, numel = [], 0, 0
    for mask in (two_four[name] for name in tiles):
        gains.append(tile_sums(~mask, size).flatten())
        base, numel = base + int(mask.count_nonzero()), numel + mask.numel()
    return torch.cat(gains), base, numel


def harden_logits(
    logits: Mapping[str, Tensor], sparsity: Fraction, rule: str, per_tensor: bool = False
) -> Mapping[str, Tensor]:
    """Bool masks from one logit per weight: "threshold" keeps theta > 0; "exact" keeps the top N - round(s N) of all
    tensors together, or of each one by itself (`per_tensor`); of equal logits the earlier are kept."""
    if rule == "threshold":
        return Made(logits, lambda _, theta: theta > 0)
    if per_tensor:
        return Made(logits, lambda name, theta: harden_logits({name: theta}, sparsity, rule)[name])
    numel = sum(theta.numel() for theta in logits.values())
    return Made(logits, cut_at(logits, kept(sparsity, numel)).mask)
