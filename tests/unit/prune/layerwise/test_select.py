"""Budgets are met to the weight and the choice is the brute-force one, for every shape, sparsity and tie."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leap_repro.prune.layerwise.select import (
    KTH_SMALLEST,
    by_selection,
    by_sort,
    drop_smallest,
    drop_smallest_in_groups,
    drop_smallest_in_matrix,
    drop_smallest_in_rows,
    floor_in_matrix,
    floor_in_rows,
    up_to_threshold,
)
from leap_repro.sparsity.patterns import Pattern

SPARSITIES = st.integers(0, 999).map(lambda thousandths: Fraction(thousandths, 1000))


@st.composite
def score_matrices(draw, distinct=False):
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 13))
    if distinct:
        flat = draw(st.permutations(range(rows * columns)))
    else:
        flat = draw(st.lists(st.integers(0, 4), min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(flat, dtype=torch.float32).view(rows, columns)


def smallest_first(scores: list[float]) -> list[int]:
    """Positions by score; of equal scores the earlier position first."""
    return sorted(range(len(scores)), key=lambda position: (scores[position], position))


def brute_force_matrix(scores, count):
    gone = set(smallest_first(scores.flatten().tolist())[:count])
    return [position not in gone for position in range(scores.numel())]


def brute_force_rows(scores, sparsity, total):
    rows, columns = scores.shape
    share = math.floor(sparsity * columns)
    orders = [smallest_first(row) for row in scores.tolist()]
    gone = {(row, column) for row, order in enumerate(orders) for column in order[:share]}
    following = sorted((float(scores[row, order[share]]), row) for row, order in enumerate(orders) if share < columns)
    gone |= {(row, orders[row][share]) for _, row in following[: total - rows * share]}
    return [[(row, column) not in gone for column in range(columns)] for row in range(rows)]


@given(scores=score_matrices(), sparsity=SPARSITIES)
@settings(max_examples=150, deadline=None)
def test_a_matrix_drops_exactly_its_budget_and_the_brute_force_choice(scores, sparsity, drop_count):
    count = drop_count(sparsity, scores.numel())
    keep = drop_smallest_in_matrix(scores, sparsity)
    assert keep.dtype == torch.bool
    assert int((~keep).sum()) == count
    assert keep.flatten().tolist() == brute_force_matrix(scores, count)


@given(scores=st.one_of(score_matrices(), score_matrices(distinct=True)), sparsity=SPARSITIES)
@settings(max_examples=250, deadline=None)
def test_rows_drop_exactly_the_matrix_budget_and_the_brute_force_choice(scores, sparsity, drop_count):
    total = drop_count(sparsity, scores.numel())
    keep = drop_smallest_in_rows(scores, sparsity)
    assert int((~keep).sum()) == total
    assert keep.tolist() == brute_force_rows(scores, sparsity, total)


@given(scores=score_matrices(), sparsity=SPARSITIES)
@settings(max_examples=150, deadline=None)
def test_each_row_drops_the_floor_or_the_ceiling_of_its_share(scores, sparsity):
    share = sparsity * scores.shape[1]
    per_row = (~drop_smallest_in_rows(scores, sparsity)).sum(dim=1).tolist()
    assert set(per_row) <= {math.floor(share), math.ceil(share)}


@given(scores=score_matrices(distinct=True), sparsity=SPARSITIES)
@settings(max_examples=150, deadline=None)
def test_rows_that_drop_one_more_are_those_whose_next_score_is_smallest(scores, sparsity):
    keep = drop_smallest_in_rows(scores, sparsity)
    per_row = (~keep).sum(dim=1)
    more = per_row > per_row.min()
    if more.any():
        last_dropped = scores.masked_fill(keep, -1.0).max(dim=1).values[more]
        first_kept = scores.masked_fill(~keep, math.inf).min(dim=1).values[~more]
        assert last_dropped.max() < first_kept.min()


@given(scores=score_matrices(), data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_count_from_none_to_all_is_dropped_exactly(scores, data):
    count = data.draw(st.integers(0, scores.numel()))
    keep = drop_smallest(scores, count)
    assert keep.shape == scores.shape
    assert keep.flatten().tolist() == brute_force_matrix(scores, count)


@pytest.mark.parametrize(
    ("sparsity", "numel", "gone"),
    [
        ("0.5", 5, 2),
        ("0.5", 3, 2),
        ("0.25", 6, 2),
        ("0.25", 10, 2),
        ("0.7", 15, 10),
        ("0.7", 45, 32),
        ("0.145", 100, 14),
        ("0", 4, 0),
    ],
)
@pytest.mark.parametrize("select", [drop_smallest_in_matrix, drop_smallest_in_rows])
def test_halves_of_the_exact_fraction_and_not_of_a_float_round_to_even(select, sparsity, numel, gone):
    assert int((~select(torch.arange(float(numel)).view(1, numel), Fraction(sparsity))).sum()) == gone


FEW = [0.0, -0.0, 1e-45, -1e-45, 1e-39, 1.2e-38, -1.2e-38, 1.0, -1.0, math.inf, -math.inf]
"""Zeros of both signs, numbers below the least normal one, and few enough that lists of them have ties."""


@given(
    scores=st.lists(st.one_of(st.sampled_from(FEW), st.floats(width=32, allow_nan=False)), min_size=1), data=st.data()
)
@settings(max_examples=300, deadline=None)
def test_a_sort_drops_what_a_selection_does(scores, data):
    """The way of a GPU, on a CPU: its numbers are those of the CPU's way, and so are its masks."""
    flat, count = torch.tensor(scores), data.draw(st.integers(1, len(scores)))
    assert by_sort(flat, count) == by_selection(flat, count) == sorted(scores)[count - 1]
    masks = [drop_smallest(flat, count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KTH_SMALLEST, "cpu", by_sort)
        masks.append(drop_smallest(flat, count))
    assert masks[0].tolist() == masks[1].tolist() == brute_force_matrix(flat, count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sort_drops_what_a_selection_does_from_a_large_matrix_full_of_ties(dtype, monkeypatch):
    scores = torch.randn(300, 701, generator=torch.Generator().manual_seed(0)).mul(8).round().div(64).to(dtype)
    counts = range(1, scores.numel(), scores.numel() // 23)
    selected = [drop_smallest(scores, count) for count in counts]
    monkeypatch.setitem(KTH_SMALLEST, "cpu", by_sort)
    for count, mask in zip(counts, selected, strict=True):
        assert torch.equal(drop_smallest(scores, count), mask)
        assert int((~mask).sum()) == count


def test_of_equal_scores_the_earlier_positions_go():
    keep = drop_smallest_in_matrix(torch.ones(3, 4), Fraction("0.5"))
    assert keep.flatten().tolist() == [False] * 6 + [True] * 6


def test_of_rows_with_equal_next_scores_the_earlier_drop_one_more():
    keep = drop_smallest_in_rows(torch.ones(4, 3), Fraction("0.5"))
    assert (~keep).sum(dim=1).tolist() == [2, 2, 1, 1]
    assert keep[3].tolist() == [False, True, True]


@given(scores=score_matrices(), groups=st.integers(1, 4), pattern=st.sampled_from([(1, 2), (2, 4), (4, 8), (3, 5)]))
@settings(max_examples=100, deadline=None)
def test_each_group_drops_its_smallest(scores, groups, pattern):
    scores = scores.repeat(1, groups * pattern[1])[:, : groups * pattern[1]].contiguous()
    keep = drop_smallest_in_groups(scores, Pattern(*pattern))
    assert keep.shape == scores.shape
    for row, kept in zip(scores.view(-1, pattern[1]).tolist(), keep.view(-1, pattern[1]).tolist(), strict=True):
        gone = set(smallest_first(row)[: pattern[0]])
        assert kept == [position not in gone for position in range(pattern[1])]


@given(scores=score_matrices(), sparsity=SPARSITIES)
@settings(max_examples=100, deadline=None)
def test_the_released_roundings_are_the_floor_and_the_threshold(scores, sparsity):
    numel, columns = scores.numel(), scores.shape[1]
    assert int((~floor_in_matrix(scores, sparsity)).sum()) == int(numel * float(sparsity))
    assert set((~floor_in_rows(scores, sparsity)).sum(dim=1).tolist()) == {int(columns * float(sparsity))}
    limit = sorted(scores.flatten().tolist())[int(numel * float(sparsity))]
    assert up_to_threshold(scores, sparsity).tolist() == [[score > limit for score in row] for row in scores.tolist()]


def test_the_released_counts_multiply_floats():
    assert int((~floor_in_matrix(torch.arange(100.0).view(1, 100), Fraction("0.29"))).sum()) == 28
