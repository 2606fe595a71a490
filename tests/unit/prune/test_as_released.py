"""As-released switches choose the weights that the public codes choose, on random well-conditioned layers.

The oracles are written in float64 from what the public codes do (docs/methods): explicit eliminations and inverses,
none of this project's selection. At least 99.9 % of a mask's entries must agree; where rounding has no part, all must.
"""

from __future__ import annotations

import numpy as np
import pytest

from leap_repro.prune.methods import admm, magnitude, sparsegpt, thanos, wanda

ROWS, COLUMNS = 48, 80
SPARSITIES = ["0.5", "0.6", "0.29"]
AGREEMENT = 0.999


@pytest.fixture(params=range(2))
def layer_of(request, random_layer):
    """sparsity -> a layer with its weight and inputs in float64."""
    return lambda sparsity: random_layer(ROWS, COLUMNS, sparsity, seed=request.param, tokens=400)


def agreement(pruned, dropped):
    return np.mean(pruned.keep.numpy() == ~dropped)


def hessian_of(inputs):
    hessian = 2.0 / len(inputs) * inputs.T @ inputs
    return hessian + 0.01 * np.mean(np.diag(hessian)) * np.eye(len(hessian))


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_magnitude_drops_up_to_and_with_a_threshold(layer_of, sparsity):
    layer, weight, _ = layer_of(sparsity)
    sizes = np.abs(weight)
    threshold = np.sort(sizes.ravel())[int(weight.size * float(sparsity))]
    pruned = magnitude.prune_layer(layer, magnitude.Options(rounding="as_released"))
    np.testing.assert_array_equal(~pruned.keep.numpy(), sizes <= threshold)
    assert (~pruned.keep).sum() == int(weight.size * float(sparsity)) + 1


def test_magnitude_overshoots_on_ties(make_layer):
    weight = np.array([[1.0, -1.0, 1.0, -1.0, 2.0, 3.0]])
    pruned = magnitude.prune_layer(make_layer(weight, np.eye(6), "0.5"), magnitude.Options(rounding="as_released"))
    assert pruned.keep.tolist() == [[False, False, False, False, True, True]]


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_wanda_drops_the_floor_of_each_row(layer_of, sparsity):
    layer, weight, inputs = layer_of(sparsity)
    order = np.argsort(np.abs(weight) * np.linalg.norm(inputs, axis=0), axis=1, kind="stable")
    dropped = np.zeros(weight.shape, dtype=bool)
    np.put_along_axis(dropped, order[:, : int(COLUMNS * float(sparsity))], True, axis=1)
    assert agreement(wanda.prune_layer(layer, wanda.Options(rounding="as_released")), dropped) >= AGREEMENT


def test_wanda_at_sixty_percent_of_64_inputs_drops_less(random_layer):
    layer, *_ = random_layer(5, 64, "0.6")
    pruned = wanda.prune_layer(layer, wanda.Options(rounding="as_released"))
    assert set((~pruned.keep).sum(dim=1).tolist()) == {38}
    assert float((~pruned.keep).float().mean()) == pytest.approx(0.594, abs=5e-4)


def eliminate(weight, inputs, choose, block_size):
    """Left to right on explicit inverses; `choose(scores, column, block)` may mark drops before a column is done."""
    hessian, weight = hessian_of(inputs), weight.copy()
    inverses = [np.linalg.inv(hessian[j:, j:]) for j in range(COLUMNS)]
    diagonal = np.array([inverse[0, 0] for inverse in inverses])
    dropped = np.zeros(weight.shape, dtype=bool)
    for j in range(COLUMNS):
        stop = min(j - j % block_size + block_size, COLUMNS)
        choose(dropped, weight**2 / diagonal, j, stop)
        gone = dropped[:, j]
        weight[gone, j:] -= np.outer(weight[gone, j] / diagonal[j], inverses[j][0])
        weight[gone, j] = 0.0
    return dropped


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("block_size", [128, 32])
def test_sparsegpt_drops_up_to_and_with_a_threshold_in_each_block(layer_of, sparsity, block_size):
    layer, weight, inputs = layer_of(sparsity)

    def choose(dropped, scores, column, stop):
        if column % block_size == 0:
            block = scores[:, column:stop]
            threshold = np.sort(block.ravel())[int(block.size * float(sparsity))]
            dropped[:, column:stop] = block <= threshold

    dropped = eliminate(weight, inputs, choose, block_size)
    options = sparsegpt.Options(block_size=block_size, rounding="as_released")
    assert agreement(sparsegpt.prune_layer(layer, options), dropped) >= AGREEMENT


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8)])
def test_sparsegpt_chooses_a_group_at_its_first_column_from_the_updated_weights(layer_of, n, m):
    layer, weight, inputs = layer_of("0.5")

    def choose(dropped, scores, column, stop):
        if column % m == 0:
            order = np.argsort(scores[:, column : column + m], axis=1, kind="stable")
            np.put_along_axis(dropped[:, column : column + m], order[:, :n], True, axis=1)

    dropped = eliminate(weight, inputs, choose, 16)
    options = sparsegpt.Options(block_size=16, pattern=f"{n}:{m}")
    assert agreement(sparsegpt.prune_layer(layer, options), dropped) >= AGREEMENT


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("block_size", [512, 32])
def test_thanos_drops_the_smallest_of_what_remains_and_the_floor_in_all(layer_of, sparsity, block_size):
    layer, weight, inputs = layer_of(sparsity)
    hessian, norms, moved = hessian_of(inputs), np.linalg.norm(inputs, axis=0), weight.copy()
    dropped = np.zeros(weight.shape, dtype=bool)
    for start in range(0, COLUMNS, block_size):
        stop = min(start + block_size, COLUMNS)
        inverse = np.linalg.inv(hessian[start:, start:])
        scores = np.abs(moved[:, start:]) * norms[start:]
        count = int(float(sparsity) * ROWS * COLUMNS - dropped.sum())
        smallest = np.zeros(scores.size, dtype=bool)
        smallest[np.argsort(scores.ravel(), kind="stable")[:count]] = True
        dropped[:, start:stop] = smallest.reshape(scores.shape)[:, : stop - start]
        for row in range(ROWS):
            gone = np.flatnonzero(dropped[row, start:stop])
            moved[row, start:] -= np.linalg.solve(inverse[np.ix_(gone, gone)], moved[row, start + gone]) @ inverse[gone]
    options = thanos.Options(block_size=block_size, rounding="as_released")
    assert agreement(thanos.prune_layer(layer, options), dropped) >= AGREEMENT


def admm_iterations(weight, inputs, mask_at):
    """Twenty iterations on [in, out]; `mask_at(iteration, |V + U|)` gives the mask of the first fifteen."""
    gram = inputs.T @ inputs
    sizes = np.sqrt(np.diag(gram)) + 1e-8
    gram = gram / np.outer(sizes, sizes)
    gram += 0.1 * np.mean(np.diag(gram)) * np.eye(COLUMNS)
    v = (weight * sizes).T
    target, inverse, u = gram @ v, np.linalg.inv(gram + np.eye(COLUMNS)), np.zeros((COLUMNS, ROWS))
    for iteration in range(20):
        if iteration < 15:
            mask = mask_at(iteration, np.abs(v + u))
        z = (v + u) * mask
        u = u + v - z
        v = inverse @ (target + z - u)
    return ~mask.T


def gradual(sparsity, iteration):
    return sparsity - sparsity * (1 - (iteration + 1) / 15) ** 3


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_admm_drops_the_floor_of_the_matrix_from_the_first_iteration_on(layer_of, sparsity):
    layer, weight, inputs = layer_of(sparsity)

    def mask_at(iteration, sizes):
        mask = np.ones(sizes.size, dtype=bool)
        mask[np.argsort(sizes.ravel(), kind="stable")[: int(sizes.size * float(sparsity))]] = False
        return mask.reshape(sizes.shape)

    options = admm.Options(schedule="as_released", rounding="as_released")
    assert agreement(admm.prune_layer(layer, options), admm_iterations(weight, inputs, mask_at)) >= AGREEMENT


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_admm_per_row_is_gradual_as_released_too(layer_of, sparsity):
    layer, weight, inputs = layer_of(sparsity)

    def mask_at(iteration, sizes):
        return sizes >= np.sort(sizes, axis=0)[int(COLUMNS * gradual(float(sparsity), iteration))]

    options = admm.Options(schedule="as_released", rounding="as_released", group="row")
    assert agreement(admm.prune_layer(layer, options), admm_iterations(weight, inputs, mask_at)) >= AGREEMENT


def test_admm_two_of_four_protects_two_of_each_group_and_drops_the_others_gradually(layer_of):
    layer, weight, inputs = layer_of("0.5")

    def mask_at(iteration, sizes):
        groups = sizes.T.reshape(-1, 4).copy()
        np.put_along_axis(groups, np.argsort(groups, axis=1, kind="stable")[:, 2:], np.inf, axis=1)
        open_sizes = groups.reshape(ROWS, COLUMNS).T
        rank = int(sizes.size * gradual(0.5, iteration))
        return open_sizes >= np.sort(open_sizes.ravel())[rank]

    options = admm.Options(schedule="as_released", rounding="as_released", pattern="2:4")
    assert agreement(admm.prune_layer(layer, options), admm_iterations(weight, inputs, mask_at)) >= AGREEMENT
