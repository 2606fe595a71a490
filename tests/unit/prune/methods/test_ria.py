"""RIA drops the smallest (share of the row + share of the column) * norm ** a, and moves no weight."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from leap_repro.errors import UserError
from leap_repro.prune.methods import ria, wanda
from leap_repro.prune.run import load_method

SPARSITIES = ["0", "0.3", "0.5", "0.6", "0.99"]


def score(weight, inputs, exponent, row, column):
    """One weight's, summed with Python's own exact sum."""
    size = abs(weight[row, column])
    by_row = math.fsum(abs(w) for w in weight[row])
    by_column = math.fsum(abs(w) for w in weight[:, column])
    return (size / by_row + size / by_column) * math.sqrt(math.fsum(inputs[:, column] ** 2)) ** exponent


def all_scores(weight, inputs, exponent=0.5):
    rows, columns = weight.shape
    return np.array([[score(weight, inputs, exponent, i, j) for j in range(columns)] for i in range(rows)])


def without_smallest(scores, count):
    keep = np.ones(scores.size, dtype=bool)
    keep[sorted(range(scores.size), key=lambda i: scores.flat[i])[:count]] = False
    return keep.reshape(scores.shape)


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("needs_gram", [False, True])
def test_the_mask_is_the_brute_force_one(sparsity, exponent, needs_gram, random_layer, drop_count):
    layer, weight, inputs = random_layer(6, 11, sparsity, seed=1, needs_gram=needs_gram)
    pruned = ria.prune_layer(layer, ria.Options(exponent=exponent))
    expected = without_smallest(all_scores(weight, inputs, exponent), drop_count(sparsity, weight.size))
    np.testing.assert_array_equal(pruned.keep.numpy(), expected)
    assert pruned.values is None


def test_rows_drop_the_floor_of_their_share_and_then_the_smallest_of_what_is_next(random_layer, drop_count):
    layer, weight, inputs = random_layer(6, 11, "0.6", seed=2)
    scores, total = all_scores(weight, inputs), drop_count("0.6", weight.size)
    keep = np.stack([without_smallest(row, 6) for row in scores])
    following = np.sort(scores, axis=1)[:, 6]
    for row in np.argsort(following)[: total - 6 * 6]:
        keep[row] = without_smallest(scores[row], 7)
    np.testing.assert_array_equal(ria.prune_layer(layer, ria.Options(group="row")).keep.numpy(), keep)


@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_a_group_keeps_its_highest_scores(pattern, random_layer):
    layer, weight, inputs = random_layer(5, 16, "0.5", seed=3)
    n, m = map(int, pattern.split(":"))
    groups = all_scores(weight, inputs).reshape(-1, m)
    expected = np.stack([without_smallest(group, n) for group in groups]).reshape(weight.shape)
    np.testing.assert_array_equal(ria.prune_layer(layer, ria.Options(pattern=pattern)).keep.numpy(), expected)


@pytest.mark.parametrize("sparsity", ["0.5", "0.6", "0.29"])
def test_as_released_the_matrix_loses_all_up_to_a_threshold_and_a_row_its_floor(sparsity, random_layer):
    layer, weight, inputs = random_layer(9, 14, sparsity, seed=4)
    scores = all_scores(weight, inputs)
    threshold = np.sort(scores.ravel())[int(weight.size * float(sparsity))]
    matrix, row = (ria.prune_layer(layer, ria.Options(rounding="as_released", group=g)).keep for g in ("matrix", "row"))
    np.testing.assert_array_equal(~matrix.numpy(), scores <= threshold)
    np.testing.assert_array_equal(row, np.stack([without_smallest(r, int(14 * float(sparsity))) for r in scores]))


def test_a_column_of_small_weights_does_not_die_as_in_wanda(random_layer, make_layer):
    _, weight, inputs = random_layer(12, 16, "0.5", seed=6)
    weight[:, 3] *= 1e-3
    layer = make_layer(weight, inputs, "0.5")
    assert not wanda.prune_layer(layer, wanda.Options()).keep[:, 3].any()
    assert ria.prune_layer(layer, ria.Options()).keep[:, 3].any()


def test_rows_and_columns_of_zeros_score_zero_and_no_more(random_layer, make_layer):
    _, weight, inputs = random_layer(6, 8, "0.5")
    weight[2], weight[:, 5] = 0.0, 0.0
    importance = ria.relative_importance(torch.from_numpy(weight))
    assert torch.isfinite(importance).all()
    assert not importance[2].any()
    assert not importance[:, 5].any()
    assert not ria.prune_layer(make_layer(weight, inputs, "0.5"), ria.Options()).keep[2].any()


def test_relative_importance_sums_to_rows_plus_columns(random_layer):
    _, weight, _ = random_layer(6, 11, "0.5", seed=5)
    assert float(ria.relative_importance(torch.from_numpy(weight)).sum()) == pytest.approx(6 + 11, rel=1e-12)


def test_a_group_that_a_pattern_would_ignore_is_refused():
    with pytest.raises(UserError, match=r"ria.*group is 'row'.*2:4"):
        load_method("ria", {"group": "row", "pattern": "2:4"})


def test_an_exponent_below_zero_is_refused():
    with pytest.raises(UserError, match=r"ria: exponent is -0\.5; it must be a number from 0 to 1e9"):
        load_method("ria", {"exponent": -0.5})
