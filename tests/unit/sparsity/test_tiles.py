"""Tiles over matrices that they do not divide: sums and spreading against plain loops, the nearest number by trial."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leap_repro.sparsity.tiles import dense_tiles, spread, tile_grid, tile_sums, tiles_to_keep_dense

SIZES = st.tuples(st.integers(1, 13), st.integers(1, 13), st.integers(1, 6), st.integers(0, 99))


@given(SIZES)
@settings(max_examples=60, deadline=None)
def test_a_tile_holds_the_weights_that_its_place_says(case):
    rows, columns, size, seed = case
    keep = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.8
    sums, values = tile_sums(keep, size), torch.arange(tile_grid((rows, columns), size)[0] * 100).view(-1, 100)
    spreaded = spread(values[:, : sums.shape[1]], size, (rows, columns))
    for row in range(rows):
        for column in range(columns):
            place = (row // size, column // size)
            assert spreaded[row, column] == values[place]
            tile = keep[place[0] * size :, place[1] * size :][:size, :size]
            assert sums[place] == sum(map(int, tile.flatten()))
            assert dense_tiles(keep, size)[row, column] == bool(tile.all())
    assert sums.sum() == keep.sum()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 30), st.integers(0, 80), st.randoms())
@settings(max_examples=100, deadline=None)
def test_no_other_number_of_tiles_is_nearer(gains, base, target, random):
    ranking = random.sample(range(len(gains)), len(gains))
    count = tiles_to_keep_dense(torch.tensor(ranking), torch.tensor(gains), base, target)
    distances = [abs(base + sum(gains[i] for i in ranking[:k]) - target) for k in range(len(gains) + 1)]
    assert distances.index(min(distances)) == count
