"""DSnoT swaps as a row-by-row loop in float64 does, keeps every row's count, and leaves wide errors smaller."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from leap_repro.prune.job import Job, Selector
from leap_repro.prune.layerwise.driver import prune_layers
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.statistics import InputStatistics
from leap_repro.prune.methods import dsnot, magnitude, optima, wanda

LENGTH = 2048


def swapping(inputs, most=50, **given):
    """Options by which a row with so many inputs has at most `most` swaps."""
    return dsnot.Options(cycles=most * dsnot.INPUTS // inputs, skip_mlp=False, **given)


@pytest.fixture
def shifted_layer(make_layer, correlated_inputs):
    """(rows, columns, sparsity, seed) -> a layer whose inputs have means, and its weight and inputs in float64."""

    def build(rows, columns, sparsity, seed=0):
        generator = np.random.default_rng(2000 + seed)
        weight = generator.standard_normal((rows, columns)).astype(np.float32)
        inputs = correlated_inputs(96, columns, seed) + 0.2 * generator.standard_normal(columns).astype(np.float32)
        return make_layer(weight, inputs, sparsity), weight.astype(np.float64), inputs.astype(np.float64)

    return build


def refine_row(weights, keep, inputs, options, most=50):
    """One row's swaps in float64, one candidate after another; returns the expected error before and after each."""
    means, variances = inputs.mean(axis=0) * LENGTH, inputs.var(axis=0)
    norms, moved = np.linalg.norm(inputs, axis=0), set()
    effect = [w * m for w, m in zip(weights, means, strict=True)]
    errors = [sum(e for e, k in zip(effect, keep, strict=True) if not k)]
    for _ in range(most):
        error = errors[-1]
        sign = np.sign(error)
        grow = [j for j in range(len(weights)) if not keep[j] and j not in moved and sign * effect[j] > 0]
        if abs(error) <= options.threshold or not grow:
            break
        grown = max(grow, key=lambda j: sign * effect[j] / variances[j] ** options.variance_power)
        prune = [j for j in range(len(weights)) if keep[j] and j not in moved]
        if options.n_of_m:
            prune = [j for j in prune if j // options.n_of_m.group == grown // options.n_of_m.group]
        else:
            prune = [j for j in prune if sign * effect[j] < 0]
        if not prune:
            break
        pruned = min(prune, key=lambda j: abs(weights[j]) * norms[j])
        after = error - effect[grown] + effect[pruned]
        improving = options.swaps == "improving"
        if improving and abs(after) >= abs(error):
            break
        if not improving and options.n_of_m and np.sign(after) != np.sign(errors[0]):
            break
        keep[grown], keep[pruned] = True, False
        moved |= {grown, pruned}
        errors.append(after)
    return errors


@pytest.mark.parametrize("swaps", ["improving", "as_released"])
@pytest.mark.parametrize("most", [3, 48])
@pytest.mark.parametrize("given", [{}, {"threshold": 100.0}, {"threshold": 0.0, "variance_power": 0.0}])
@pytest.mark.parametrize(("sparsity", "start"), [("0.5", "wanda"), ("0.6", "wanda"), ("0.3", "magnitude")])
@pytest.mark.parametrize("seed", range(3))
def test_the_mask_is_that_of_a_loop_over_rows(seed, sparsity, start, given, most, swaps, shifted_layer):
    layer, weight, inputs = shifted_layer(9, 24, sparsity, seed)
    options = swapping(24, most, start=start, swaps=swaps, **given)
    first = dsnot.prune_layer(layer, options.model_copy(update={"threshold": float("inf")})).keep
    expected = first.numpy().copy()
    errors = [refine_row(row, keep, inputs, options, most) for row, keep in zip(weight, expected, strict=True)]
    pruned = dsnot.prune_layer(layer, options)
    np.testing.assert_array_equal(pruned.keep.numpy(), expected)
    assert pruned.values is None
    assert pruned.log["cycles"] == max(map(len, errors)) - 1
    assert pruned.log["changed"] == np.mean(first.numpy() != expected)
    assert pruned.log["expected_error_before"] == pytest.approx(np.mean([abs(e[0]) for e in errors]), rel=1e-3)
    assert pruned.log["expected_error"] == pytest.approx(np.mean([abs(e[-1]) for e in errors]), rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("swaps", ["improving", "as_released"])
@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
@pytest.mark.parametrize("seed", range(4))
def test_with_a_pattern_swaps_stay_within_groups(seed, pattern, swaps, shifted_layer):
    layer, weight, inputs = shifted_layer(9, 24, "0.5", seed)
    options = swapping(24, pattern=pattern, swaps=swaps)
    expected = wanda.prune_layer(layer, wanda.Options(pattern=pattern)).keep.numpy().copy()
    for row, keep in zip(weight, expected, strict=True):
        refine_row(row, keep, inputs, options)
    pruned = dsnot.prune_layer(layer, options)
    np.testing.assert_array_equal(pruned.keep.numpy(), expected)
    assert pruned.log["changed"] > 0


@pytest.mark.parametrize("module", [wanda, magnitude])
def test_without_a_swap_it_is_the_first_mask_of_which_no_row_competes_with_another(module, shifted_layer, make_layer):
    layer, weight, inputs = shifted_layer(8, 20, "0.6")
    rows = [make_layer(row[None], inputs, "0.6") for row in weight]
    expected = torch.cat([module.prune_layer(row, module.Options()).keep for row in rows])
    options = dsnot.Options(start=module.METHOD.name, threshold=1e9, skip_mlp=False)
    assert torch.equal(dsnot.prune_layer(layer, options).keep, expected)


@pytest.mark.parametrize("rounding", ["exact", "as_released"])
@pytest.mark.parametrize("sparsity", ["0.3", "0.55", "0.6", "0.9"])
def test_every_row_keeps_its_number_of_weights(sparsity, rounding, shifted_layer):
    layer, *_ = shifted_layer(9, 23, sparsity, seed=5)
    pruned = dsnot.prune_layer(layer, swapping(23, rounding=rounding, threshold=0.0))
    first = wanda.prune_layer(layer, wanda.Options(rounding=rounding)).keep
    assert pruned.keep.sum(dim=1).tolist() == first.sum(dim=1).tolist()
    assert not torch.equal(pruned.keep, first)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("seed", range(5))
def test_where_swaps_must_improve_the_expected_error_of_no_row_ever_grows(seed, pattern, shifted_layer):
    layer, weight, inputs = shifted_layer(16, 40, "0.5", seed)
    effects = torch.from_numpy(weight * inputs.mean(axis=0) * LENGTH)
    first = wanda.prune_layer(layer, wanda.Options(pattern=pattern)).keep
    last = first
    for most in (1, 2, 5, 40):
        options = swapping(40, most, pattern=pattern, threshold=0.0, swaps="improving")
        keep = dsnot.prune_layer(layer, options).keep
        before, after = dsnot.expected_error(effects, last).abs(), dsnot.expected_error(effects, keep).abs()
        assert (after <= before + 1e-6).all()
        last = keep
    assert not torch.equal(first, last)


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_expected_error_falls(seed, shifted_layer):
    layer, *_ = shifted_layer(32, 64, "0.6", seed)
    log = dsnot.prune_layer(layer, swapping(64, swaps="improving")).log
    assert log["expected_error"] < 0.6 * log["expected_error_before"]


def test_as_released_a_row_goes_on_past_zero_until_its_threshold_or_its_last_cycle(shifted_layer):
    layer, *_ = shifted_layer(32, 64, "0.6")
    improving, released = (dsnot.prune_layer(layer, swapping(64, swaps=s)).log for s in ("improving", "as_released"))
    assert released["changed"] > 2 * improving["changed"]
    assert released["cycles"] > improving["cycles"]


def in_attention(layer):
    return Layer("model.layers.0.self_attn.q_proj.weight", layer.weight, layer.statistics, layer.sparsity)


def test_matrices_of_an_mlp_keep_their_first_mask_as_in_the_public_code(shifted_layer):
    layer, *_ = shifted_layer(8, 20, "0.5")
    changed = [dsnot.prune_layer(of, dsnot.Options()).log["changed"] for of in (layer, in_attention(layer))]
    assert "mlp" in layer.name
    assert changed[0] == 0 < changed[1]
    assert dsnot.prune_layer(layer, dsnot.Options(skip_mlp=False)).log["changed"] > 0


@pytest.mark.parametrize(("inputs", "most"), [(24, 1), (64, 1), (128, 2), (256, 3), (2048, 25), (4096, 50)])
def test_swaps_go_by_the_length_of_the_row(inputs, most):
    """50 of 4,096 inputs, as in the public code, and as large a share of any other row."""
    assert dsnot.Options().most_swaps(inputs) == most
    assert dsnot.Options(scale_cycles=False).most_swaps(inputs) == 50


def test_by_default_a_short_row_swaps_once(shifted_layer):
    layer = in_attention(shifted_layer(16, 64, "0.6")[0])
    first = dsnot.prune_layer(layer, dsnot.Options(threshold=1e9)).keep
    pruned = dsnot.prune_layer(layer, dsnot.Options(threshold=0.0))
    assert pruned.log["cycles"] == 1
    assert set((pruned.keep & ~first).sum(dim=1).tolist()) == {1}


def test_rows_that_are_too_short_for_the_public_code_are_refused_by_name(shifted_layer, refused):
    """It stops there: "index -1 is out of bounds for dimension 1 with size 26"."""
    layer = in_attention(shifted_layer(16, 64, "0.6")[0])
    with refused("dsnot: cycles is 50", layer.name, "scale_cycles: true"):
        dsnot.prune_layer(layer, dsnot.Options(scale_cycles=False))
    few = dsnot.prune_layer(layer, dsnot.Options(scale_cycles=False, cycles=25))
    assert torch.equal(few.keep, dsnot.prune_layer(layer, swapping(64, 25)).keep)


def test_means_and_variances_are_those_of_all_tokens():
    inputs = np.random.default_rng(0).standard_normal((100, 7)) * 3 + np.arange(7)
    inputs[:, 2], inputs[:, 4] = 0.0, 5.0
    statistics = InputStatistics(7, torch.device("cpu"), needs_gram=False, needs_sums=True)
    for batch in np.split(inputs, [13, 60]):
        statistics.add(torch.from_numpy(batch))
    np.testing.assert_allclose(statistics.means, inputs.mean(axis=0), rtol=1e-6, atol=1e-7)
    varying = [0, 1, 3, 5, 6]
    np.testing.assert_allclose(statistics.variances[varying], inputs.var(axis=0)[varying], rtol=1e-5)
    assert statistics.variances[2] == 0
    assert 0 < statistics.variances[4] < 1e-5


def test_sums_change_no_bit_of_norms_or_gram(correlated_inputs):
    inputs = torch.from_numpy(correlated_inputs(64, 9, 0))
    for needs_gram in (False, True):
        kinds = [InputStatistics(9, torch.device("cpu"), needs_gram, needs_sums) for needs_sums in (False, True)]
        for statistics in kinds:
            statistics.add(inputs[:30])
            statistics.add(inputs[30:])
        assert torch.equal(kinds[0].total, kinds[1].total)


def test_the_driver_gives_moments_and_nothing_more(tiny_llama, tokens):
    seen = []

    def rule(layer, options):
        seen.append(layer.statistics)
        return PrunedLayer(torch.ones_like(layer.weight, dtype=torch.bool))

    job = Job(tiny_llama(), dsnot.Options(), Fraction(0), seed=0, tokens=tokens)
    prune_layers(job, rule, "moments", job.options.facts)
    assert all(statistics.total.ndim == 1 and statistics.needs_sums for statistics in seen)
    assert all(torch.isfinite(statistics.variances).all() for statistics in seen)


def test_a_reconstruction_may_take_up_its_mask(tiny_llama, tokens):
    def masks(method, options, **more):
        job = Job(tiny_llama(blocks=1), options, Fraction("0.5"), seed=0, tokens=tokens, **more)
        return {name: keep for name, keep in method.prune_cell(job).tensors.items() if name.endswith(".keep")}

    options = dsnot.Options(threshold=0.0, skip_mlp=False)
    alone = masks(dsnot.METHOD, options)
    completed = masks(optima.METHOD, optima.Options(damping=0.01), selector=Selector(dsnot.METHOD, options))
    assert all(torch.equal(keep, completed[name]) for name, keep in alone.items())
