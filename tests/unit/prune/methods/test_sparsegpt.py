"""SparseGPT's lazy float32 updates equal a column-by-column float64 elimination with explicit inverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from leap_repro.prune.methods import sparsegpt


def damped(inputs, damping=0.01):
    """H = (2 / n) X'X, 1 on the diagonal of dead inputs, plus damping; and which inputs are dead."""
    hessian = 2.0 / len(inputs) * inputs.T @ inputs
    dead = np.diag(hessian) == 0
    hessian[dead, dead] = 1.0
    return hessian + damping * np.mean(np.diag(hessian)) * np.eye(len(hessian)), dead


def column_by_column(weight, inputs, sparsity, block_size, drop_count):
    """Optimal brain surgeon on what is left at each column: no Cholesky factor, no lazy batch."""
    hessian, dead = damped(inputs)
    weight = weight.copy()
    weight[:, dead] = 0.0
    rows, columns = weight.shape
    inverses = [np.linalg.inv(hessian[j:, j:]) for j in range(columns)]
    keep = np.ones((rows, columns), dtype=bool)
    for j in range(columns):
        if j % block_size == 0:
            block = range(j, min(j + block_size, columns))
            count = drop_count(sparsity, rows * block.stop) - drop_count(sparsity, rows * j)
            scores = {(i, c): weight[i, c] ** 2 / inverses[c][0, 0] for i in range(rows) for c in block}
            for place in sorted(scores, key=lambda place: (scores[place], place))[:count]:
                keep[place] = False
        for i in np.flatnonzero(~keep[:, j]):
            weight[i, j:] -= weight[i, j] / inverses[j][0, 0] * inverses[j][0]
            weight[i, j] = 0.0
    return keep, weight


def output_error(weight, pruned, inputs):
    return np.sum((inputs @ (weight - pruned).T) ** 2)


@pytest.mark.parametrize("block_size", [1, 4, 5, 7, 16, 128])
@pytest.mark.parametrize("sparsity", ["0", "0.5", "0.6", "0.9"])
@pytest.mark.parametrize("dead", [(), (2, 9)])
def test_mask_and_values_are_those_of_the_float64_oracle(block_size, sparsity, dead, random_layer, drop_count):
    layer, weight, inputs = random_layer(9, 16, sparsity, seed=2, dead=dead)
    pruned = sparsegpt.prune_layer(layer, sparsegpt.Options(block_size=block_size))
    keep, values = column_by_column(weight, inputs, sparsity, block_size, drop_count)
    np.testing.assert_array_equal(pruned.keep.numpy(), keep)
    np.testing.assert_allclose(pruned.values.numpy(), values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("pattern", "sparsity"), [("unstructured", "0.6"), ("2:4", "0.5")])
def test_without_updates_masks_are_those_of_the_weights_as_they_are(pattern, sparsity, random_layer, drop_count):
    layer, weight, inputs = random_layer(9, 16, sparsity, seed=2, dead=(3,))
    options = sparsegpt.Options(block_size=8, pattern=pattern, update_weights=False)
    pruned = sparsegpt.prune_layer(layer, options)
    hessian, dead = damped(inputs)
    weight = np.where(dead, 0.0, weight)
    scores = weight**2 / [np.linalg.inv(hessian[j:, j:])[0, 0] for j in range(16)]
    keep = np.ones((9, 16), dtype=bool)
    for first in range(0, 16, 4 if pattern == "2:4" else 8):
        group = np.s_[:, first : first + (4 if pattern == "2:4" else 8)]
        if pattern == "2:4":
            keep[group] = scores[group].argsort(axis=1).argsort(axis=1) >= 2
        else:
            count = drop_count(sparsity, 9 * (first + 8)) - drop_count(sparsity, 9 * first)
            keep[group] = scores[group].flatten().argsort().argsort().reshape(9, 8) >= count
    np.testing.assert_array_equal(pruned.keep.numpy(), keep)
    np.testing.assert_array_equal(pruned.values.numpy(), (weight * keep).astype(np.float32))


def test_the_mask_depends_on_the_block_size(random_layer):
    layer, *_ = random_layer(9, 16, "0.5", seed=2)
    masks = [sparsegpt.prune_layer(layer, sparsegpt.Options(block_size=size)).keep for size in (4, 16)]
    assert not torch.equal(*masks)


def test_blocks_wider_than_the_matrix_are_one_block(random_layer):
    layer, *_ = random_layer(9, 16, "0.5", seed=2)
    one, wider = (sparsegpt.prune_layer(layer, sparsegpt.Options(block_size=size)) for size in (16, 1000))
    assert torch.equal(one.keep, wider.keep)
    assert torch.equal(one.values, wider.values)


@pytest.mark.parametrize("seed", range(5))
def test_a_single_dropped_weight_is_made_up_for_by_exact_least_squares(seed, random_layer):
    layer, weight, inputs = random_layer(1, 8, "0.125", seed=seed)
    pruned = sparsegpt.prune_layer(layer, sparsegpt.Options())
    (gone,) = np.flatnonzero(~pruned.keep[0].numpy())
    hessian, _ = damped(inputs)
    expected, right = weight[0].copy(), slice(gone + 1, None)
    expected[right] += np.linalg.solve(hessian[right, right], hessian[right, gone]) * weight[0, gone]
    expected[gone] = 0.0
    np.testing.assert_allclose(pruned.values[0].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block_size", [5, 128])
def test_the_update_beats_plain_masking(seed, block_size, random_layer):
    layer, weight, inputs = random_layer(12, 24, "0.5", seed=seed)
    pruned = sparsegpt.prune_layer(layer, sparsegpt.Options(block_size=block_size))
    updated = output_error(weight, pruned.values.double().numpy(), inputs)
    assert updated < 0.9 * output_error(weight, weight * pruned.keep.numpy(), inputs)


@pytest.mark.parametrize("block_size", [1, 3, 7, 128])
@pytest.mark.parametrize("sparsity", ["0.31", "0.5", "0.6", "0.999"])
@pytest.mark.parametrize("shape", [(1, 13), (5, 13), (7, 1), (3, 8)])
def test_the_total_is_exact_though_blocks_do_not_divide_the_columns(
    block_size, sparsity, shape, random_layer, drop_count
):
    layer, weight, _ = random_layer(*shape, sparsity)
    pruned = sparsegpt.prune_layer(layer, sparsegpt.Options(block_size=block_size))
    assert int((~pruned.keep).sum()) == drop_count(sparsity, weight.size)
    assert not pruned.values[~pruned.keep].any()


def test_weights_of_dead_inputs_become_zero(random_layer):
    layer, *_ = random_layer(6, 12, "0.25", dead=(0, 4, 11))
    pruned = sparsegpt.prune_layer(layer, sparsegpt.Options(block_size=5))
    assert not pruned.values[:, [0, 4, 11]].any()
    assert pruned.values[:, [1, 2, 3]].any()


def test_the_layer_that_it_is_given_stays_as_it_is(random_layer):
    layer, weight, inputs = random_layer(6, 12, "0.5", dead=(3,))
    sparsegpt.prune_layer(layer, sparsegpt.Options())
    np.testing.assert_array_equal(layer.weight.numpy(), weight)
    np.testing.assert_allclose(layer.statistics.gram.numpy(), inputs.T @ inputs, rtol=1e-5, atol=1e-3)
