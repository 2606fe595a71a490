"""Square tiles over a matrix, the last ones cut off at its edges: what PATCH's gates, hardening and checks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def tile_grid(shape: Sequence[int], size: int) -> tuple[int, int]:
    """How many tiles of `size` x `size` cover a matrix, down and across."""
    return -(-shape[0] // size), -(-shape[1] // size)


def spread(tiles: Tensor, size: int, shape: Sequence[int]) -> Tensor:
    """One value per tile -> one per weight, [out, in]; differentiable."""
    wide = tiles.repeat_interleave(size, 0).repeat_interleave(size, 1)
    return wide[: shape[0], : shape[1]]


def tile_sums(values: Tensor, size: int) -> Tensor:
    """The sum of `values` [out, in] in each tile, as int64; cut-off tiles sum what they have. Nothing larger than a row
    of tiles is ever int64."""
    down, across = tile_grid(values.shape, size)
    padding = (0, across * size - values.shape[1], 0, down * size - values.shape[0])
    rows = nn.functional.pad(values, padding).view(down, size, across, size)
    return torch.stack([row.long().sum(dim=(0, 2)) for row in rows])


def dense_tiles(keep: Tensor, size: int) -> Tensor:
    """Which weights lie in a tile that keeps every weight; bool [out, in]."""
    return spread(tile_sums(~keep, size) == 0, size, keep.shape)


def tiles_to_keep_dense(ranking: Tensor, gains: Tensor, base: int, target: int) -> int:
    """How many of the best tiles to keep dense so that the kept weights come nearest to `target` (fewer if two do).

    `ranking` [tiles] orders them best first, `gains` [tiles] is what each adds to the `base` weights that stay anyway.
    """
    totals = base + torch.cat([torch.zeros(1, dtype=torch.int64), gains[ranking].cumsum(0)])
    return int((totals - target).abs().argmin())
