"""Wanda drops the smallest |W_ij| * ||X_:j|| of each output row and moves no weight."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from leap_repro.errors import UserError
from leap_repro.prune.job import Job
from leap_repro.prune.methods import wanda


def brute_force(weight, inputs, sparsity, total):
    """Floor of the share per row, then the smallest next score of all rows, one row at a time."""
    rows, columns = weight.shape
    scores = np.array(
        [[abs(weight[i, j]) * math.sqrt(sum(x * x for x in inputs[:, j])) for j in range(columns)] for i in range(rows)]
    )
    share = math.floor(Fraction(sparsity) * columns)
    keep = np.ones((rows, columns), dtype=bool)
    for row in range(rows):
        keep[row, np.argsort(scores[row], kind="stable")[:share]] = False
    open_rows = set(range(rows))
    while np.sum(~keep) < total:
        row, column = min(
            ((i, j) for i in open_rows for j in range(columns) if keep[i, j]), key=lambda ij: (scores[ij], ij)
        )
        keep[row, column] = False
        open_rows.remove(row)
    return keep


@pytest.mark.parametrize("sparsity", ["0", "0.3", "0.5", "0.6", "0.99"])
@pytest.mark.parametrize("dead", [(), (0, 5)])
@pytest.mark.parametrize("needs_gram", [False, True])
def test_the_mask_is_the_brute_force_one(sparsity, dead, needs_gram, random_layer, drop_count):
    layer, weight, inputs = random_layer(6, 11, sparsity, seed=1, needs_gram=needs_gram, dead=dead)
    pruned = wanda.prune_layer(layer, wanda.Options())
    expected = brute_force(weight, inputs, sparsity, drop_count(sparsity, weight.size))
    np.testing.assert_array_equal(pruned.keep.numpy(), expected)
    assert pruned.values is None


def test_of_equal_weights_those_with_the_smallest_inputs_go(make_layer):
    inputs = np.ones((10, 4)) * [3.0, 1.0, 4.0, 2.0]
    pruned = wanda.prune_layer(make_layer(np.full((3, 4), -0.5), inputs, "0.5"), wanda.Options())
    assert pruned.keep.tolist() == [[True, False, True, False]] * 3


def test_rows_do_not_compete_with_one_another(random_layer, make_layer):
    _, weight, inputs = random_layer(6, 10, "0.5")
    louder = weight * np.array([[1.0], [100.0], [0.01], [10.0], [1.0], [1.0]])
    masks = [wanda.prune_layer(make_layer(w, inputs, "0.5"), wanda.Options()).keep for w in (weight, louder)]
    assert torch.equal(*masks)


def test_a_job_without_tokens_is_refused(tiny_llama):
    with pytest.raises(UserError, match="it needs tokens"):
        wanda.METHOD.prune_cell(Job(tiny_llama(), wanda.Options(), Fraction("0.5"), seed=0))


@pytest.mark.parametrize("dead", [(), (0, 5)])
def test_shifted_norms_are_those_of_the_scripts_behind_the_tables(dead, random_layer):
    """Their formula, in float64: the smallest mean square, zeros counting as 1, is added to all."""
    layer, weight, inputs = random_layer(6, 11, "0.5", seed=1, dead=dead)
    squares = (inputs.astype(np.float64) ** 2).mean(axis=0) / 100  # well below 1, as the zeros' stand-in must be
    smallest = np.where(squares == 0, 1, squares).min()
    scores = np.abs(weight) * np.sqrt(squares + smallest)
    keep = wanda.prune_layer(layer, wanda.Options(shift_norms=True, rounding="as_released")).keep.numpy()
    for row, kept in zip(scores, keep, strict=True):
        assert set(np.flatnonzero(~kept)) == set(np.argsort(row, kind="stable")[:5])


def test_a_shift_lets_a_large_weight_at_a_quiet_input_stay(make_layer):
    layer = make_layer(np.array([[3.2, 2.0]]), np.ones((10, 2)) * [1.0, 2.0], "0.5")
    kept = [wanda.prune_layer(layer, wanda.Options(shift_norms=shift)).keep.tolist() for shift in (False, True)]
    assert kept == [[[False, True]], [[True, False]]]
