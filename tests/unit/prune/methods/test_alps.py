"""ALPS agrees with a float64 version by eigendecomposition, and its weights are the best ones for its support."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from leap_repro.errors import UserError
from leap_repro.prune.layerwise.statistics import relative_error
from leap_repro.prune.methods import admm, alps, optima, wanda
from leap_repro.prune.run import load_method

DAMPING = 0.01


def damped(inputs, dead=()):
    gram = inputs.T @ inputs
    gram[list(dead), list(dead)] = 1.0
    return gram + DAMPING * np.mean(np.diag(gram)) * np.eye(len(gram))


def largest(values, count):
    """Mask of the `count` largest sizes of [in, out], the first of equal ones of each output going first."""
    keep = np.zeros(values.size, dtype=bool)
    keep[np.argsort(np.abs(values.T).ravel(), kind="stable")[values.size - count :]] = True
    return keep.reshape(values.T.shape).T


def best_values(hessian, weight, keep):
    """Row by row, the weights on `keep` [out, in] with the least (p - w)' H (p - w)."""
    values = np.zeros(weight.shape)
    for row, kept in enumerate(keep):
        k = np.flatnonzero(kept)
        values[row, k] = np.linalg.solve(hessian[np.ix_(k, k)], hessian[k] @ weight[row])
    return values


def float64_alps(weight, inputs, count, released=False, rho=0.1, dead=(), most=300):
    """On [in, out] with an unscaled dual, one eigendecomposition for every penalty."""
    hessian, weight = damped(inputs, dead), weight * ~np.isin(np.arange(weight.shape[1]), dead)
    d = np.sqrt(np.diag(hessian))
    scaled = hessian / np.outer(d, d)
    eigenvalues, vectors = np.linalg.eigh(scaled)
    dense = (weight * d).T
    y, v = scaled @ dense, np.zeros(dense.shape)
    z = dense * largest(dense, count)
    support, rising = z != 0, not released
    for t in range(1, most + 1):
        w = vectors @ ((vectors.T @ (y - v + rho * z)) / (eigenvalues + rho)[:, None])
        z = (w + v / rho) * largest(w + v / rho, count)
        v = v + rho * (w - z)
        if t % 3:
            continue
        change, support = np.sum(support != (z != 0)), z != 0
        if change > 0.005 * count:
            rising = True
        if change == 0 and rising:
            break
        if released and t > 30 and change < 0.0003 * count:
            break
        if rising:
            rho *= 1.3 if change > 0.1 * count else 1.2 if change > 0.005 * count else 1.1
        else:
            rho /= 5
            if change > 0:
                z, v = dense * largest(dense, count), np.zeros(dense.shape)
    keep = (largest(w, count) if released else z != 0).T
    return keep, best_values(hessian, weight, keep), t, rho


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("sparsity", ["0.5", "0.6", "0.7", "0.9"])
@pytest.mark.parametrize("dead", [(), (1, 7)])
@pytest.mark.parametrize("seed", range(3))
def test_mask_and_values_are_those_of_the_float64_version(seed, released, sparsity, dead, random_layer, drop_count):
    layer, weight, inputs = random_layer(9, 16, sparsity, seed=seed, dead=dead)
    pruned = alps.prune_layer(layer, alps.Options(schedule="as_released" if released else "as_written"))
    count = weight.size - drop_count(sparsity, weight.size)
    keep, values, iterations, rho = float64_alps(weight, inputs, count, released, dead=dead)
    np.testing.assert_array_equal(pruned.keep.numpy(), keep)
    np.testing.assert_allclose(pruned.values.numpy(), values, rtol=1e-3, atol=1e-4)
    assert pruned.log["iterations"] == iterations
    assert pruned.log["rho"] == pytest.approx(rho)


@pytest.mark.parametrize("rho", [1e4, 30.0])
def test_a_penalty_that_is_too_high_falls_only_as_released(rho, random_layer, drop_count):
    layer, weight, inputs = random_layer(12, 24, "0.6", seed=2)
    written, released = (
        alps.prune_layer(layer, alps.Options(schedule=schedule, rho=rho)) for schedule in ("as_written", "as_released")
    )
    count = weight.size - drop_count("0.6", weight.size)
    np.testing.assert_array_equal(released.keep.numpy(), float64_alps(weight, inputs, count, True, rho)[0])
    assert released.log["rho"] < rho <= written.log["rho"]
    gram = layer.statistics.gram
    assert relative_error(layer.weight, released.values, gram) < relative_error(layer.weight, written.values, gram)


@pytest.mark.parametrize("seed", range(3))
def test_before_there_is_rest_the_two_schedules_read_the_support_off_different_iterates(seed, random_layer, drop_count):
    layer, weight, inputs = random_layer(12, 24, "0.6", seed=seed)
    count, masks = weight.size - drop_count("0.6", weight.size), []
    for released in (False, True):
        options = alps.Options(schedule="as_released" if released else "as_written", iterations=8)
        masks.append(alps.prune_layer(layer, options).keep)
        np.testing.assert_array_equal(masks[-1].numpy(), float64_alps(weight, inputs, count, released, most=8)[0])
    assert not torch.equal(*masks)


def errors_of_rivals(layer):
    """ADMM's relative error, and that of Wanda's and ADMM's masks with their best weights."""
    selected = admm.prune_layer(layer, admm.Options())
    yield relative_error(layer.weight, selected.values, layer.statistics.gram)
    for mask in (selected, wanda.prune_layer(layer, wanda.Options())):
        best = optima.reconstruct(layer, mask, optima.Options())
        yield relative_error(layer.weight, best.values, layer.statistics.gram)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sparsity", ["0.6", "0.7"])
def test_it_reconstructs_better_than_admm_and_than_optimal_weights_on_their_masks(seed, sparsity, random_layer):
    layer, *_ = random_layer(48, 64, sparsity, seed=seed, tokens=256)
    ours = relative_error(layer.weight, alps.prune_layer(layer, alps.Options()).values, layer.statistics.gram)
    assert ours < min(errors_of_rivals(layer))


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4:8"])
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_of_the_weights_that_stay_is_zero(seed, pattern, random_layer):
    layer, weight, inputs = random_layer(12, 24, "0.5", seed=seed)
    pruned = alps.prune_layer(layer, alps.Options(pattern=pattern))
    keep, hessian = pruned.keep.numpy(), damped(inputs)
    gradient = (pruned.values.double().numpy() - weight) @ hessian * keep
    masking = (weight * ~keep) @ hessian * keep
    assert np.linalg.norm(gradient) < 1e-4 * np.linalg.norm(masking)
    np.testing.assert_allclose(pruned.values, best_values(hessian, weight, keep), rtol=1e-3, atol=1e-4)


def test_of_single_rows_it_finds_supports_near_the_best_of_all(random_layer):
    """Every support of a row is tried: ALPS is never better, often as good, and not far off on average."""
    ratios = []
    for seed in range(12):
        layer, weight, inputs = random_layer(1, 10, "0.6", seed=seed)
        hessian = damped(inputs)

        def error(values, weight=weight, hessian=hessian):
            return float(((values - weight) @ hessian * (values - weight)).sum())

        supports = (np.isin(np.arange(10), kept)[None] for kept in combinations(range(10), 4))
        best = min(error(best_values(hessian, weight, keep)) for keep in supports)
        ratios.append(error(alps.prune_layer(layer, alps.Options()).values.double().numpy()) / best)
    assert min(ratios) > 1 - 1e-4
    assert np.mean(ratios) < 1.15
    assert np.median(ratios) < 1.01


def test_the_same_layer_gives_the_same_bits(random_layer):
    first, again = (alps.prune_layer(random_layer(12, 24, "0.6", seed=1)[0], alps.Options()) for _ in range(2))
    assert torch.equal(first.keep, again.keep)
    assert torch.equal(first.values, again.values)
    assert first.log == again.log


def test_the_statistics_are_left_as_they_are(random_layer):
    layer, *_ = random_layer(9, 16, "0.6", dead=(2,))
    gram, weight = layer.statistics.gram.clone(), layer.weight.clone()
    alps.prune_layer(layer, alps.Options())
    assert torch.equal(layer.statistics.gram, gram)
    assert torch.equal(layer.weight, weight)


@pytest.mark.parametrize(("moved", "factor"), [(0.2, 1.3), (0.1, 1.2), (0.006, 1.2), (0.005, 1.1), (1e-6, 1.1)])
def test_the_penalty_grows_by_how_much_moved(moved, factor):
    assert alps.growth(moved) == factor


def test_iterations_end_where_they_are_told_to(random_layer):
    layer, *_ = random_layer(12, 24, "0.6", seed=1)
    assert alps.prune_layer(layer, alps.Options(iterations=4)).log["iterations"] == 4
    rested = alps.prune_layer(layer, alps.Options()).log["iterations"]
    assert rested % 3 == 0
    assert rested < 300


@pytest.mark.parametrize(("option", "changed"), [("rho", 1.0), ("damping", 0.1), ("iterations", 6)])
def test_each_option_matters(option, changed, random_layer):
    layer, *_ = random_layer(12, 24, "0.6", seed=3)
    usual, other = (alps.prune_layer(layer, options) for options in (alps.Options(), alps.Options(**{option: changed})))
    assert not torch.equal(usual.values, other.values)


def test_inputs_without_a_usable_gram_matrix_are_refused_by_name(random_layer):
    layer, *_ = random_layer(6, 8, "0.5")
    layer.statistics.total[3, 3] = math.inf
    with pytest.raises(UserError, match=r"the Hessian of model\.layers\.3\.mlp\.up_proj\.weight is not finite"):
        alps.prune_layer(layer, alps.Options())
    layer.statistics.total[3, 3] = -1e6
    with pytest.raises(UserError, match=r"the Hessian of model\.layers\.3\.mlp\.up_proj\.weight is not positive"):
        alps.prune_layer(layer, alps.Options())


def test_a_singular_gram_matrix_without_damping_gets_some_and_the_log_says_so(random_layer):
    layer, *_ = random_layer(6, 16, "0.5", tokens=8)
    pruned = alps.prune_layer(layer, alps.Options(damping=0.0))
    assert len(pruned.log["dampings"]) > 1
    assert torch.isfinite(pruned.values).all()


def test_operations_are_products_factors_and_the_solve():
    few, many = (alps.Options(iterations=i).operations(128, 64, 32) for i in (3, 35))
    assert few == 3 * 2 * 128 * 64**2 + 64**3 + 128 * 32**3 / 3
    assert many > few
    assert alps.Options().operations(128, 64, 32) == many


@pytest.mark.parametrize(("option", "value"), [("rho", 0.0), ("damping", -0.1), ("iterations", 0)])
def test_values_out_of_bounds_are_refused(option, value):
    with pytest.raises(UserError, match=f"alps: {option} is"):
        load_method("alps", {option: value})


def test_as_released_a_few_stragglers_count_as_rest(random_layer):
    """It may end with the last straggler, too; over a few layers it ends earlier, never later."""
    counts = []
    for seed in range(4):
        layer, *_ = random_layer(160, 192, "0.6", seed=seed, tokens=600)
        written, released = (
            alps.prune_layer(layer, alps.Options(schedule=schedule, rho=0.01))
            for schedule in ("as_written", "as_released")
        )
        counts.append((released.log["iterations"], written.log["iterations"]))
        assert float((written.keep != released.keep).double().mean()) < 0.001
    assert all(30 < early <= late for early, late in counts)
    assert any(early < late for early, late in counts)
