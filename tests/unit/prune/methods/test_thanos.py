"""Thanos' batched float32 solves equal a row-by-row float64 removal that inverts the remaining Hessian anew."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from leap_repro.errors import UserError
from leap_repro.prune.job import Job
from leap_repro.prune.methods import thanos
from leap_repro.prune.run import load_method


def damped(inputs, damping=0.01):
    """H = (2 / n) X'X, 1 on the diagonal of dead inputs, plus damping; and which inputs are dead."""
    hessian = 2.0 / len(inputs) * inputs.T @ inputs
    dead = np.diag(hessian) == 0
    hessian[dead, dead] = 1.0
    return hessian + damping * np.mean(np.diag(hessian)) * np.eye(len(hessian)), dead


def smallest(scores, count):
    """Positions of the `count` smallest, earlier ones first among equals."""
    places = [(i, j) for i in range(scores.shape[0]) for j in range(scores.shape[1])]
    return sorted(places, key=lambda place: (scores[place], place))[:count]


def row_by_row(weight, inputs, block_size, choose):
    """`choose(weight, start, stop, removed)` gives the dropped places of a block; one explicit solve per row."""
    hessian, dead = damped(inputs)
    weight = weight.copy()
    weight[:, dead] = 0.0
    keep = np.ones(weight.shape, dtype=bool)
    for start in range(0, weight.shape[1], block_size):
        stop = min(start + block_size, weight.shape[1])
        inverse = np.linalg.inv(hessian[start:, start:])
        for place in choose(weight, start, stop, int(np.sum(~keep))):
            keep[place] = False
        for row in range(len(weight)):
            gone = np.flatnonzero(~keep[row, start:stop])
            if len(gone):
                multipliers = np.linalg.solve(inverse[np.ix_(gone, gone)], weight[row, start + gone])
                weight[row, start:] -= multipliers @ inverse[gone]
                weight[row, start + gone] = 0.0
    return keep, weight


def unstructured(inputs, count):
    norms = np.linalg.norm(inputs, axis=0)

    def choose(weight, start, stop, removed):
        scores = np.abs(weight[:, start:]) * norms[start:]
        return [(i, start + j) for i, j in smallest(scores, count - removed) if start + j < stop]

    return choose


def two_of_four(inputs, dense=()):
    norms = np.linalg.norm(inputs, axis=0)

    def choose(weight, start, stop, removed):
        scores = np.abs(weight) * norms
        for row in set(range(len(weight))) - set(dense):
            for group in range(start, stop, 4):
                order = np.argsort(scores[row, group : group + 4], kind="stable")
                yield from ((row, group + j) for j in order[:2])

    return choose


def assert_same(pruned, expected):
    keep, values = expected
    np.testing.assert_array_equal(pruned.keep.numpy(), keep)
    np.testing.assert_allclose(pruned.values.numpy(), values, rtol=1e-4, atol=1e-4)
    assert not pruned.values[~pruned.keep].any()


@pytest.mark.parametrize("block_size", [1, 4, 5, 16, 128])
@pytest.mark.parametrize("sparsity", ["0", "0.5", "0.6", "0.9"])
@pytest.mark.parametrize("dead", [(), (2, 9)])
def test_mask_and_values_are_those_of_the_float64_oracle(block_size, sparsity, dead, random_layer, drop_count):
    layer, weight, inputs = random_layer(9, 16, sparsity, seed=2, dead=dead)
    pruned = thanos.prune_layer(layer, thanos.Options(block_size=block_size))
    count = drop_count(sparsity, weight.size)
    assert int((~pruned.keep).sum()) == count
    assert_same(pruned, row_by_row(weight, inputs, block_size, unstructured(inputs, count)))


@pytest.mark.parametrize("block_size", [4, 8, 128])
@pytest.mark.parametrize("dead", [(), (2, 9)])
def test_two_of_four_is_that_of_the_float64_oracle(block_size, dead, random_layer):
    layer, weight, inputs = random_layer(9, 16, "0.5", seed=4, dead=dead)
    pruned = thanos.prune_layer(layer, thanos.Options(block_size=block_size, pattern="2:4"))
    assert_same(pruned, row_by_row(weight, inputs, block_size, two_of_four(inputs)))


def loss_of_rows(weight, inputs):
    return np.sum((inputs @ weight.T) ** 2, axis=0)


def squared_scores_of_rows(weight, inputs):
    return np.sum(weight**2 @ inputs.T**2, axis=1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("options", "rank", "count"),
    [
        ({"alpha": 0.1}, loss_of_rows, 1),
        ({"alpha": 0.34}, loss_of_rows, 4),
        ({"rounding": "as_released"}, squared_scores_of_rows, 1),
        ({"rounding": "as_released", "alpha": 0.34}, squared_scores_of_rows, 4),
    ],
)
def test_the_rows_of_highest_loss_stay_dense_and_as_they_are(options, rank, count, seed, random_layer):
    layer, weight, inputs = random_layer(9, 16, "0.5", seed=seed)
    dense = np.argsort(-rank(weight, inputs))[:count]
    pruned = thanos.prune_layer(layer, thanos.Options(pattern="2:4", block_size=8, **options))
    assert_same(pruned, row_by_row(weight, inputs, 8, two_of_four(inputs, dense)))
    assert pruned.keep.all(dim=1).nonzero().flatten().tolist() == sorted(dense)
    np.testing.assert_array_equal(pruned.values[dense].numpy(), weight[dense].astype(np.float32))


@pytest.mark.parametrize("sparsity", ["0.29", "0.5", "0.577"])
def test_as_released_drops_the_floor_of_the_matrix(sparsity, random_layer):
    layer, weight, inputs = random_layer(5, 20, sparsity, seed=1)
    pruned = thanos.prune_layer(layer, thanos.Options(block_size=8, rounding="as_released"))
    count = math.floor(float(sparsity) * weight.size)
    assert int((~pruned.keep).sum()) == count
    assert_same(pruned, row_by_row(weight, inputs, 8, unstructured(inputs, count)))


def test_rows_that_drop_very_different_counts_are_solved_alike(random_layer, make_layer):
    _, weight, inputs = random_layer(40, 24, "0.6", seed=5)
    weight *= np.geomspace(0.01, 10.0, 40)[:, None]
    pruned = thanos.prune_layer(make_layer(weight, inputs, "0.6"), thanos.Options(block_size=12))
    counts = (~pruned.keep[:, :12]).sum(dim=1)
    assert counts.min() == 0
    assert counts.max() == 12
    assert_same(pruned, row_by_row(weight, inputs, 12, unstructured(inputs, math.floor(0.6 * weight.size))))


def test_small_batches_give_the_same_result(random_layer, monkeypatch):
    layer, *_ = random_layer(30, 24, "0.6", seed=5)
    whole = thanos.prune_layer(layer, thanos.Options(block_size=12))
    monkeypatch.setitem(thanos.BATCH_ENTRIES, "cpu", 1)
    single = thanos.prune_layer(layer, thanos.Options(block_size=12))
    assert torch.equal(whole.keep, single.keep)
    torch.testing.assert_close(whole.values, single.values)


@pytest.mark.parametrize("seed", range(4))
def test_joint_removal_beats_plain_masking(seed, random_layer):
    layer, weight, inputs = random_layer(12, 24, "0.5", seed=seed)
    pruned = thanos.prune_layer(layer, thanos.Options(block_size=8))
    ours, masked = pruned.values.double().numpy(), weight * pruned.keep.numpy()
    errors = [np.sum((inputs @ (weight - values).T) ** 2) for values in (ours, masked)]
    assert errors[0] < 0.9 * errors[1]


def test_the_layer_that_it_is_given_stays_as_it_is(random_layer):
    layer, weight, inputs = random_layer(6, 12, "0.5", dead=(3,))
    thanos.prune_layer(layer, thanos.Options())
    np.testing.assert_array_equal(layer.weight.numpy(), weight)
    np.testing.assert_allclose(layer.statistics.gram.numpy(), inputs.T @ inputs, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({}, ("unstructured", "tensor")),
        ({"rounding": "as_released"}, ("unstructured", "none")),
        ({"pattern": "2:4"}, ("2:4", "tensor")),
        ({"pattern": "4:8", "alpha": 0.1}, ("4:8+dense-rows", "none")),
        ({"pattern": "2:4", "rounding": "as_released"}, ("2:4+dense-rows", "none")),
    ],
)
def test_a_cell_promises_no_more_than_its_masks_keep(options, facts, tiny_llama, tokens):
    job = Job(tiny_llama(), thanos.Options(**options), Fraction("0.5"), seed=0, tokens=tokens)
    cell = thanos.METHOD.prune_cell(job)
    assert (cell.facts["pattern"], cell.facts["budget_scope"]) == facts


@pytest.mark.parametrize(
    "options", [{"alpha": 0.1}, {"alpha": 1.0, "pattern": "2:4"}, {"alpha": -0.1, "pattern": "2:4"}]
)
def test_dense_rows_without_a_pattern_or_beyond_the_matrix_are_refused(options):
    with pytest.raises(UserError, match=r"thanos.*alpha"):
        load_method("thanos", options)


def test_blocks_that_cut_a_group_are_refused():
    with pytest.raises(UserError, match=r"thanos.*block_size is 10.*2:4"):
        load_method("thanos", {"block_size": 10, "pattern": "2:4"})
