"""OPTIMA gives the optimum for its mask: least squares in float64, KKT residuals, and properties over random layers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leap_repro.errors import UserError
from leap_repro.prune.job import Job, Parent, Selector
from leap_repro.prune.layerwise import first_order, masked_solve
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.statistics import InputStatistics
from leap_repro.prune.methods import admm, magnitude, optima, sparsegpt, thanos, wanda
from leap_repro.prune.run import load_method, load_selector

SELECTORS = {"magnitude": magnitude, "wanda": wanda, "sparsegpt": sparsegpt, "thanos": thanos, "admm": admm}
EXACT = optima.Options()
AS_RELEASED = optima.Options(solver="as_released", only_if_better=True)


def least_squares(weight, inputs, keep, damping):
    """Row by row: min over v of ||X (v - w)||^2 2/n + share |v - w|^2, by numpy's lstsq on the stacked system."""
    tokens, columns = inputs.shape
    share = damping * np.mean(np.sum(2 / tokens * inputs**2, axis=0))
    stacked = np.vstack([np.sqrt(2 / tokens) * inputs, np.sqrt(share) * np.eye(columns)])
    values = np.zeros_like(weight)
    for i, kept in enumerate(keep):
        values[i, kept] = np.linalg.lstsq(stacked[:, kept], stacked @ weight[i], rcond=None)[0]
    # the damping pulls towards the original weights, not towards zero: stacked @ w holds sqrt(share) w for kept ones
    return values


def residual_by_hand(weight, inputs, keep, values, damping):
    """The worst row's norm of the gradient over kept weights, relative to that of plain masking."""
    hessian = 2 / len(inputs) * inputs.T @ inputs
    hessian += damping * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    worst = 0.0
    for w, v, kept in zip(weight, values, keep, strict=True):
        reference = np.linalg.norm(hessian[np.ix_(kept, ~kept)] @ w[~kept])
        if reference:
            worst = max(worst, np.linalg.norm((hessian @ (v - w))[kept]) / reference)
    return worst


def output_error(weight, values, inputs):
    return np.sum((inputs @ (weight - values).T) ** 2)


def in_float64(weight, inputs, sparsity="0.5"):
    """A layer whose weight and statistics are float64 to the last bit."""
    statistics = InputStatistics(weight.shape[1], torch.device("cpu"), needs_gram=True)
    statistics.total = torch.from_numpy(inputs.T @ inputs)
    statistics.tokens = len(inputs)
    return Layer("model.layers.1.mlp.up_proj.weight", torch.from_numpy(weight), statistics, Fraction(sparsity))


def masked(layer, selector="wanda"):
    return SELECTORS[selector].prune_layer(layer, SELECTORS[selector].Options())


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("damping", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("sparsity", ["0.1", "0.5", "0.9"])
def test_values_are_the_least_squares_solution_of_each_row(selector, damping, sparsity, random_layer):
    layer, weight, inputs = random_layer(9, 16, sparsity, seed=2)
    selected = masked(layer, selector)
    pruned = optima.reconstruct(layer, selected, optima.Options(damping=damping))
    assert pruned.keep is selected.keep
    expected = least_squares(weight, inputs, selected.keep.numpy(), damping)
    np.testing.assert_allclose(pruned.values.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (12, 24), (24, 48), (6, 64)])
@pytest.mark.parametrize("sparsity", ["0.3", "0.5", "0.6"])
def test_the_kkt_residual_is_1e_8_in_float64_and_1e_4_in_float32(shape, sparsity, random_layer):
    layer, weight, inputs = random_layer(*shape, sparsity, seed=5, tokens=200)
    keep = masked(layer).keep
    for exact, limit in ((in_float64(weight, inputs), 1e-8), (layer, 1e-4)):
        values, row = optima.optimal_values(exact, keep, EXACT)
        assert values.dtype == exact.weight.dtype
        by_hand = residual_by_hand(weight, inputs, keep.numpy(), values.double().numpy(), EXACT.damping)
        assert by_hand <= limit
        assert row["kkt_residual"] == pytest.approx(by_hand, rel=0.5, abs=limit / 10)


def test_rows_that_keep_different_numbers_are_solved_together_and_chunks_change_nothing(random_layer, monkeypatch):
    layer, weight, inputs = random_layer(10, 16, "0.5", seed=4)
    keep = torch.arange(10).unsqueeze(1) * 1.7 > torch.arange(16).flip(0).roll(5)
    assert len(set(keep.sum(dim=1).tolist())) > 4
    assert not keep[0].any()
    values, row = optima.optimal_values(layer, keep, EXACT)
    np.testing.assert_allclose(values.numpy(), least_squares(weight, inputs, keep.numpy(), 0.0), rtol=1e-4, atol=1e-4)
    assert row["kkt_residual"] < 1e-4
    monkeypatch.setitem(masked_solve.CHUNK_ELEMENTS, "cpu", 1)
    one_by_one, *_ = optima.optimal_values(layer, keep, EXACT)
    torch.testing.assert_close(one_by_one, values, rtol=1e-4, atol=1e-5)


def test_weights_that_the_selector_moved_are_put_back_before_the_solve(random_layer):
    layer, *_ = random_layer(9, 16, "0.5", seed=2)
    selected = masked(layer, "sparsegpt")
    assert selected.values is not None
    plain = optima.reconstruct(layer, PrunedLayer(selected.keep), EXACT)
    assert torch.equal(optima.reconstruct(layer, selected, EXACT).values, plain.values)


@pytest.mark.parametrize("damping", [0.01, 1e-4, 1e-6])
def test_an_ill_conditioned_hessian_is_solved_as_well_as_float32_can_hold_the_answer(damping):
    """A spectrum that decays like 1/i^2 and two features a thousand times louder: rounding the float64 optimum to
    float32 already leaves a residual above 1e-4, and solving in float32 leaves no more than three times that."""
    generator = np.random.default_rng(3)
    basis, _ = np.linalg.qr(generator.standard_normal((96, 96)))
    inputs = generator.standard_normal((400, 96)) / np.arange(1, 97) @ basis.T
    inputs[:, [5, 40]] *= 1e3
    double = in_float64(generator.standard_normal((40, 96)), inputs)
    double.statistics.total = double.statistics.total.float()
    single = replace(double, weight=double.weight.float())
    keep = masked(single, "wanda").keep
    options = optima.Options(damping=damping)
    optimum, row = optima.optimal_values(double, keep, options)
    (held,) = row["dampings"]
    hessian = double.statistics.hessian.double()
    hessian.diagonal().add_(held * hessian.diagonal().mean())
    floor = optima.kkt_residual(hessian, double.weight, optimum.float(), keep)
    _, row = optima.optimal_values(single, keep, options)
    assert row["kkt_residual"] < 3 * floor


def test_a_system_that_is_not_positive_definite_fails_by_name(refused):
    matrix = torch.eye(130)
    matrix[100, 100] = -1.0
    with refused("model.x", "positive definite"):
        masked_solve.solve_exactly(matrix, torch.ones(2, 130), torch.ones(2, 130, dtype=torch.bool), "model.x")


@pytest.mark.parametrize("damping", [0.0, 0.01, 0.5])
def test_as_released_values_are_the_weights_and_their_changes_added_in_bfloat16(damping, random_layer):
    """The objective is half of ours, which is what its absolute tolerance speaks of, and so is its damping."""
    layer, _, inputs = random_layer(20, 48, "0.5", seed=8, tokens=400)
    keep = masked(layer).keep
    values, row = optima.released_values(layer, keep, optima.Options(solver="as_released", damping=damping))
    covariance = torch.from_numpy((inputs.T @ inputs / len(inputs)).astype(np.float32))
    covariance.diagonal().add_(damping * covariance.diagonal().mean())
    found = first_order.solve_as_released(covariance, layer.weight, keep, 1e-2)
    expected = ((layer.weight.bfloat16() + found.change.bfloat16()) * keep).float()
    torch.testing.assert_close(values, expected, rtol=2**-7, atol=1e-4)
    assert torch.equal(values, values.bfloat16().float())
    assert row["dampings"] == (damping,)
    assert (row["iterations"], row["converged_rows"]) == (found.iterations, 1)


@pytest.mark.parametrize(("unsolved", "updated"), [(1, True), (2, False)])
def test_a_matrix_of_which_too_few_rows_converge_is_left_as_it_was(unsolved, updated, random_layer, monkeypatch):
    """One row of twenty may stay unsolved, two may not; rows that drop nothing need no solving."""
    monkeypatch.setattr(first_order, "LIMIT", 74)
    layer, *_ = random_layer(20, 48, "0.5", seed=8, tokens=400)
    keep = torch.ones(20, 48, dtype=torch.bool)
    keep[:unsolved] = masked(layer).keep[:unsolved]
    options = optima.Options(solver="as_released", tolerance=1e-9)
    pruned = optima.reconstruct(layer, PrunedLayer(keep), options)
    assert pruned.log["converged_rows"] == 1 - unsolved / 20
    assert pruned.log["updated"] is updated
    assert updated or torch.equal(pruned.values, layer.weight * keep)


@pytest.mark.parametrize(("rows", "inputs", "batch"), [(200, 4096, 96), (30, 14336, 7), (5, 40000, 1), (9, 64, 9)])
def test_convergence_is_asked_of_each_of_the_public_codes_mini_batches(rows, inputs, batch):
    """`128 * 12 * 1024 * 1024 // inputs ** 2` rows at once, at least one: one bad mini-batch is enough."""
    converged = torch.ones(rows, dtype=torch.bool)
    assert optima.least_share(converged, inputs) == 1
    converged[-1] = False
    last = rows % batch or batch
    assert optima.least_share(converged, inputs) == pytest.approx(1 - 1 / last)


def test_only_if_better_keeps_the_selectors_values_where_they_are_as_good(random_layer):
    layer, weight, inputs = random_layer(9, 16, "0.5", seed=2)
    selected = masked(layer)
    best = PrunedLayer(selected.keep, optima.reconstruct(layer, selected, optima.Options(damping=0.0)).values)
    kept = optima.reconstruct(layer, best, AS_RELEASED)
    assert not kept.log["updated"]
    assert torch.equal(kept.values, best.values)
    moved = optima.reconstruct(layer, selected, AS_RELEASED)
    assert moved.log["updated"]
    assert output_error(weight, moved.values.double().numpy(), inputs) < output_error(
        weight, weight * selected.keep.numpy(), inputs
    )


def test_a_singular_hessian_is_damped_in_recorded_steps(make_layer, caplog):
    inputs = np.random.default_rng(0).standard_normal((5, 12))
    layer = make_layer(np.random.default_rng(1).standard_normal((4, 12)), inputs, "0.5")
    pruned = optima.reconstruct(layer, masked(layer), optima.Options(damping=0.0))
    assert len(pruned.log["dampings"]) > 1
    assert torch.isfinite(pruned.values).all()
    assert layer.name in caplog.text


AWKWARD = {
    "dead inputs": lambda x: x * (np.arange(13) % 4 > 0),
    "all inputs dead": lambda x: 0 * x,
    "equal inputs": np.ones_like,
    "one token": lambda x: x[:1],
    "fewer tokens than inputs": lambda x: x[:4],
    "huge inputs": lambda x: 1e6 * x,
    "tiny inputs": lambda x: 1e-6 * x,
}


@pytest.mark.parametrize("options", [EXACT, AS_RELEASED])
@pytest.mark.parametrize("sparsity", ["0", "0.5", "0.99"])
@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_inputs_leave_exact_counts_and_finite_values(
    case, sparsity, options, correlated_inputs, make_layer, drop_count
):
    weight = np.random.default_rng(5).standard_normal((6, 13))
    layer = make_layer(weight, AWKWARD[case](correlated_inputs(40, 13, seed=6)), sparsity)
    pruned = optima.reconstruct(layer, masked(layer, "magnitude"), options)
    assert int(pruned.keep.sum()) == 78 - drop_count(sparsity, 78)
    assert torch.isfinite(pruned.values).all()
    assert not pruned.values[~pruned.keep].any()


@pytest.mark.parametrize("selector", SELECTORS)
def test_an_n_of_m_selector_keeps_its_pattern_and_its_promise(selector, tiny_llama, tokens):
    module = SELECTORS[selector]
    chosen = Selector(module.METHOD, module.Options(pattern="2:4"))
    cell = optima.METHOD.prune_cell(Job(tiny_llama(), EXACT, Fraction("0.5"), seed=0, tokens=tokens, selector=chosen))
    assert (cell.facts["pattern"], cell.facts["budget_scope"]) == ("2:4", "tensor")
    for row in cell.log:
        groups = cell.tensors[f"{row['tensor']}.keep"].unflatten(1, (-1, 4))
        assert (groups.sum(dim=2) == 2).all()
        assert row["relative_error"] <= row["selector_relative_error"] * (1 + 1e-4)


layers = st.tuples(
    st.integers(1, 12),
    st.integers(1, 20),
    st.sampled_from(["0", "0.25", "0.5", "0.6", "0.95"]),
    st.sampled_from(sorted(SELECTORS)),
    st.integers(0, 10**6),
    st.integers(0, 3),
)


def draw(rows, columns, sparsity, seed, dead, dtype=np.float64):
    generator = np.random.default_rng(seed)
    mixing = np.eye(columns) + 0.6 * generator.standard_normal((columns, columns)) / np.sqrt(columns)
    inputs = generator.standard_normal((4 * columns + 8, columns)) @ mixing * generator.uniform(0.3, 3.0, columns)
    inputs[:, generator.permutation(columns)[:dead]] = 0.0
    weight = generator.standard_normal((rows, columns))
    layer = in_float64(weight, inputs, sparsity)
    if dtype == np.float32:
        layer.statistics.total = layer.statistics.total.float()
        layer = replace(layer, weight=layer.weight.float())
    return layer, weight, inputs


@settings(max_examples=60, deadline=None)
@given(layers)
def test_budget_and_mask_are_the_selectors_and_the_error_is_never_above_its_own(case):
    rows, columns, sparsity, selector, seed, dead = case
    layer, weight, inputs = draw(rows, columns, sparsity, seed, dead)
    single, *_ = draw(rows, columns, sparsity, seed, dead, np.float32)
    selected = masked(single, selector)
    pruned = optima.reconstruct(layer, selected, optima.Options(damping=0.0))
    total = rows * columns
    assert int(pruned.keep.sum()) == total - round(Fraction(sparsity) * total)
    assert torch.equal(pruned.keep, selected.keep)
    assert not pruned.values[~pruned.keep].any()
    theirs = (weight if selected.values is None else selected.values.double().numpy()) * selected.keep.numpy()
    ours = output_error(weight, pruned.values.numpy(), inputs)
    scale = np.sum((inputs @ weight.T) ** 2)
    assert ours <= output_error(weight, theirs, inputs) + 1e-9 * scale


@settings(max_examples=40, deadline=None)
@given(layers, st.randoms(use_true_random=False))
def test_permuting_the_output_rows_permutes_the_answer(case, random):
    rows, columns, sparsity, selector, seed, dead = case
    layer, *_ = draw(rows, columns, sparsity, seed, dead)
    keep = masked(draw(rows, columns, sparsity, seed, dead, np.float32)[0], selector).keep
    order = list(range(rows))
    random.shuffle(order)
    straight, *_ = optima.optimal_values(layer, keep, EXACT)
    permuted, *_ = optima.optimal_values(replace(layer, weight=layer.weight[order]), keep[order], EXACT)
    torch.testing.assert_close(permuted, straight[order], rtol=1e-9, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(layers, st.sampled_from([2.0**-10, 0.25, 8.0, 2.0**12]))
def test_the_answer_scales_with_the_weights_and_not_with_the_inputs(case, factor):
    rows, columns, sparsity, selector, seed, _ = case
    layer, weight, inputs = draw(rows, columns, sparsity, seed, 0)
    keep = masked(draw(rows, columns, sparsity, seed, 0, np.float32)[0], selector).keep
    straight, *_ = optima.optimal_values(layer, keep, EXACT)
    heavier, *_ = optima.optimal_values(in_float64(factor * weight, inputs), keep, EXACT)
    louder, *_ = optima.optimal_values(in_float64(weight, factor * inputs), keep, EXACT)
    torch.testing.assert_close(heavier, factor * straight, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(louder, straight, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("options", [EXACT, AS_RELEASED])
def test_a_model_holds_what_the_cell_says_and_the_log_tells_the_gain(
    dtype, selector, options, tiny_llama, tokens, drop_count
):
    module = SELECTORS[selector]
    job = Job(
        tiny_llama(dtype=dtype),
        options,
        Fraction("0.5"),
        seed=0,
        tokens=tokens,
        selector=Selector(module.METHOD, module.Options()),
    )
    cell = optima.METHOD.prune_cell(job)
    assert (cell.facts["pattern"], cell.facts["budget_scope"]) == ("unstructured", "tensor")
    state = job.model.state_dict()
    for row in cell.log:
        name = row["tensor"]
        keep, weight = cell.tensors[f"{name}.keep"], state[name]
        assert int(keep.sum()) == keep.numel() - drop_count("0.5", keep.numel())
        assert weight.dtype == dtype
        assert torch.isfinite(weight).all()
        assert torch.equal(weight, cell.tensors[f"{name}.values"])
        assert not weight[~keep].any()
        slack = 1.02 if dtype == torch.bfloat16 or options is AS_RELEASED else 1 + 1e-4
        assert row["relative_error"] <= row["selector_relative_error"] * slack
        assert row["kkt_residual"] < (1e-4 if options is EXACT else 1)


def test_the_masks_of_the_first_block_are_the_selectors_own(tiny_llama, tokens):
    alone = wanda.METHOD.prune_cell(Job(tiny_llama(), wanda.Options(), Fraction("0.5"), seed=0, tokens=tokens))
    selector = Selector(wanda.METHOD, wanda.Options())
    job = Job(tiny_llama(), EXACT, Fraction("0.5"), seed=0, tokens=tokens, selector=selector)
    both = optima.METHOD.prune_cell(job)
    first = [name for name in alone.tensors if ".layers.0." in name]
    assert len(first) == 7
    assert all(torch.equal(alone.tensors[name], both.tensors[name]) for name in first)


def test_without_a_selector_it_refuses_to_run(tiny_llama, tokens, refused):
    with refused("optima", "selector"):
        optima.METHOD.prune_cell(Job(tiny_llama(), EXACT, Fraction("0.5"), seed=0, tokens=tokens))


@pytest.mark.parametrize("module", ["leap", "optima"])
def test_a_selector_that_is_no_one_shot_method_is_refused_by_name(module, refused):
    with refused(module, "not a one-shot method"):
        load_selector({"module": module})


@pytest.mark.parametrize("description", [{}, {"options": {}}, {"module": "wanda", "label": "Wanda"}])
def test_a_selector_that_is_described_wrongly_is_refused(description, refused):
    with refused("selector", "module"):
        load_selector(description)


@pytest.mark.parametrize("options", [{"damping": -1.0}, {"tolerance": 0.0}, {"tolerance": -0.1}])
def test_options_out_of_range_are_refused(options):
    ((key, value),) = options.items()
    with pytest.raises(UserError, match=rf"optima: {key} is {value}; it must be a number"):
        load_method("optima", options)


def test_a_tolerance_of_the_exact_solver_is_refused(refused):
    with refused("optima: tolerance is 0.001", "because solver is exact"):
        load_method("optima", {"tolerance": 1e-3})


def test_a_parents_mask_gets_the_values_that_are_best_for_it(tiny_llama, tokens):
    """The first block sees the same inputs, so its values are those of the selector's own run; KKT holds everywhere."""
    wanda, wandas = load_method("wanda", {})
    selected = wanda.prune_cell(Job(tiny_llama(), wandas, Fraction("0.6"), 0, tokens))
    masks = {name.removesuffix(".keep"): mask for name, mask in selected.tensors.items()}
    promises = {"pattern": "unstructured", "budget_scope": "tensor", "neighbours": []}
    parent = Parent("m/wanda/0.6/0", masks, {}, promises, "0.6", "")
    method, options = load_method("optima", {})
    ours = method.prune_cell(Job(tiny_llama(), options, Fraction("0.6"), 0, tokens, parent=parent))
    usual = method.prune_cell(Job(tiny_llama(), options, Fraction("0.6"), 0, tokens, selector=Selector(wanda, wandas)))
    assert all(torch.equal(ours.tensors[f"{name}.keep"], mask) for name, mask in masks.items())
    first = [name for name in masks if ".layers.0." in name]
    assert first
    assert all(torch.equal(ours.tensors[f"{name}.values"], usual.tensors[f"{name}.values"]) for name in first)
    assert max(row["kkt_residual"] for row in ours.log) < 1e-3
    assert all(row["relative_error"] < row["selector_relative_error"] for row in ours.log)


def test_values_that_the_parent_moved_are_what_the_gain_is_measured_against(tiny_llama, tokens):
    admm, admms = load_method("admm", {})
    cell = admm.prune_cell(Job(tiny_llama(), admms, Fraction("0.6"), 0, tokens))
    masks = {name.removesuffix(".keep"): t for name, t in cell.tensors.items() if name.endswith(".keep")}
    values = {name: cell.tensors[f"{name}.values"][mask] for name, mask in masks.items()}
    parent = Parent("m/admm/0.6/0", masks, values, dict(cell.facts) | {"neighbours": []}, "0.6", "")
    method, options = load_method("optima", {})
    ours = method.prune_cell(Job(tiny_llama(), options, Fraction("0.6"), 0, tokens, parent=parent))
    first = [row["tensor"] for row in ours.log if row["block"] == 0]
    expected = {row["tensor"]: row["relative_error"] for row in cell.log}
    for row in ours.log:
        if row["tensor"] in first:
            assert row["selector_relative_error"] == pytest.approx(expected[row["tensor"]], rel=1e-5)


def test_a_parent_of_another_model_or_sparsity_is_refused(tiny_llama, tokens, refused):
    method, options = load_method("optima", {})
    promises = {"pattern": "unstructured", "budget_scope": "tensor", "neighbours": []}
    with refused("was made for another model"):
        parent = Parent("m/wanda/0.6/0", {}, {}, promises, "0.6", "")
        method.prune_cell(Job(tiny_llama(), options, Fraction("0.6"), 0, tokens, parent=parent))
    with refused("a selector or a parent"):
        method.prune_cell(Job(tiny_llama(), options, Fraction("0.6"), 0, tokens))
