"""The tile gate of PATCH: each square tile of a matrix is kept dense or follows a 2:4 mask.

M = T + (1 - T) M24,  T a Bernoulli gate per tile, M24 frozen (Tile) or learned as well (Joint)
"""

from __future__ import annotations

import torch
from torch import Tensor

from leap_repro.prune.learned.declaration import Relaxation
from leap_repro.prune.learned.gates import Gate, Noise, normal_logits, prior, relaxed_gates
from leap_repro.prune.learned.gates_pattern import PatternGate
from leap_repro.prune.learned.processes import whole
from leap_repro.sparsity.tiles import spread, tile_grid, tile_sums


class TileGate(Gate):
    """`tiles` are logits [tiles down, tiles across] of tiles of `size`; `two_four` is a frozen bool mask or a gate."""

    def __init__(self, shape: tuple[int, int], size: int, tiles: Tensor, two_four: Tensor | PatternGate) -> None:
        self.shape, self.size, self.two_four = shape, size, two_four
        learned = two_four.logits if isinstance(two_four, PatternGate) else {}
        self.logits = {"tiles": tiles.requires_grad_(True), **learned}

    def mask(self, noise: Noise, relaxation: Relaxation) -> Tensor:
        theta = self.logits["tiles"]
        dense = spread(relaxed_gates(theta, noise.logistic(*theta.shape), relaxation), self.size, self.shape)
        sparse = self._two_four(noise, relaxation)
        return dense + (1 - dense) * sparse

    def _two_four(self, noise: Noise, relaxation: Relaxation) -> Tensor:
        if isinstance(self.two_four, PatternGate):
            return self._patterns(self.two_four).mask(noise, relaxation)
        self.two_four = self.two_four.to(noise.device)
        return self.two_four.float()

    def _patterns(self, gate: PatternGate) -> PatternGate:
        """The gate of the 2:4 mask with this gate's logits, which the trainer has put elsewhere since."""
        gate.logits["patterns"] = self.logits["patterns"]
        return gate

    def kept(self) -> Tensor:
        dense = spread(whole(self.logits["tiles"].detach()) > 0, self.size, self.shape).sum()
        return (dense + self.shape[0] * self.shape[1]) // 2

    def results(self) -> dict[str, Tensor]:
        if isinstance(self.two_four, PatternGate):
            return super().results() | self._patterns(self.two_four).results()
        return super().results() | {"keep": self.two_four.cpu().contiguous()}


def tile_logits(
    shapes: list[tuple[int, int]],
    size: int,
    starts: list[Tensor] | None,
    density: float,
    seed: int,
    per_matrix: bool = False,
) -> list[Tensor]:
    """The tile logits of all matrices: N(0, 0.014^2), plus 3 std for the tiles that a one-shot mask keeps densest.

    Those are the round(2 N (d - 1/2)) of the N tiles of all matrices with the highest share of kept weights in
    `starts` (bool masks [out, in]; ties: the earlier tile); the others get minus 3 std. None: no prior. `per_matrix`:
    each matrix ranks its own N tiles, with the deviation of its own draw.
    """
    grids = [tile_grid(shape, size) for shape in shapes]
    counts = [down * across for down, across in grids]
    theta = normal_logits((sum(counts),), seed, matrix=-1)
    if starts is not None:
        shares = [_kept_shares(start, size) for start in starts]
        groups = zip(theta.split(counts), shares, strict=True) if per_matrix else [(theta, torch.cat(shares))]
        theta = torch.cat([_with_prior(group, own, density) for group, own in groups])
    return [part.view(grid).clone() for part, grid in zip(theta.split(counts), grids, strict=True)]


def _with_prior(theta: Tensor, shares: Tensor, density: float) -> Tensor:
    """Flat tile logits, raised where `shares` is among the largest that are to be dense, lowered elsewhere."""
    dense = torch.sort(shares, descending=True, stable=True).indices[: round(2 * len(theta) * (density - 0.5))]
    signs = torch.full_like(theta, -1.0)
    signs[dense] = 1.0
    return theta + prior(theta) * signs


def _kept_shares(keep: Tensor, size: int) -> Tensor:
    return (tile_sums(keep, size).double() / tile_sums(torch.ones_like(keep), size)).flatten()
