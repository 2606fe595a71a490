"""ADMM pruning agrees with a float64 version written from its description, and reconstructs better than Wanda."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from leap_repro.errors import UserError
from leap_repro.prune.methods import admm, wanda
from leap_repro.prune.run import load_method


def smallest(scores, count):
    """Keep-mask [out, in] without the `count` smallest of the whole matrix."""
    keep = np.ones(scores.size, dtype=bool)
    keep[np.argsort(scores.ravel(), kind="stable")[:count]] = False
    return keep.reshape(scores.shape)


def smallest_in_rows(scores, sparsity, total):
    """The floor of each row's share, then one more from the rows whose next score is smallest."""
    share = math.floor(sparsity * scores.shape[1])
    keep = np.stack([smallest(row, share) for row in scores])
    following = np.sort(scores, axis=1)[:, share]
    for row in np.argsort(following, kind="stable")[: total - share * len(scores)]:
        keep[row] = smallest(scores[row], share + 1)
    return keep


def float64_admm(weight, inputs, sparsity, drop_count, schedule="gradual", group="matrix"):
    """Twenty iterations on [in, out], the mask frozen after fifteen."""
    sparsity = Fraction(sparsity)
    gram = inputs.T @ inputs
    d = np.sqrt(np.diag(gram)) + 1e-8
    gram = gram / d[:, None] / d[None, :]
    gram += 0.1 * np.mean(np.diag(gram)) * np.eye(len(d))
    v = (weight * d).T
    b = gram @ v
    k = np.linalg.inv(gram + np.eye(len(d)))
    u = np.zeros_like(v)
    for t in range(20):
        if t < 15:
            constant = schedule == "as_released" and group == "matrix"
            s = sparsity if constant else sparsity * (1 - (1 - Fraction(t + 1, 15)) ** 3)
            scores, total = np.abs(v + u).T, drop_count(s, v.size)
            keep = smallest(scores, total) if group == "matrix" else smallest_in_rows(scores, s, total)
        z = (v + u) * keep.T
        u = u + v - z
        v = k @ (b + z - u)
    return keep, ((v + u) * keep.T).T / d


def output_error(weight, pruned, inputs):
    return np.sum((inputs @ (weight - pruned).T) ** 2)


@pytest.mark.parametrize("schedule", ["gradual", "as_released"])
@pytest.mark.parametrize("group", ["matrix", "row"])
@pytest.mark.parametrize("sparsity", ["0", "0.5", "0.6", "0.9"])
@pytest.mark.parametrize("dead", [(), (1, 7)])
def test_mask_and_values_are_those_of_the_float64_version(schedule, group, sparsity, dead, random_layer, drop_count):
    layer, weight, inputs = random_layer(9, 16, sparsity, seed=3, dead=dead)
    pruned = admm.prune_layer(layer, admm.Options(schedule=schedule, group=group))
    keep, values = float64_admm(weight, inputs, sparsity, drop_count, schedule, group)
    np.testing.assert_array_equal(pruned.keep.numpy(), keep)
    np.testing.assert_allclose(pruned.values.numpy(), values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sparsity", ["0.5", "0.7"])
@pytest.mark.parametrize("group", ["matrix", "row"])
def test_it_reconstructs_outputs_better_than_wanda(seed, sparsity, group, random_layer):
    layer, weight, inputs = random_layer(12, 24, sparsity, seed=seed)
    ours = admm.prune_layer(layer, admm.Options(group=group)).values.double().numpy()
    theirs = weight * wanda.prune_layer(layer, wanda.Options()).keep.numpy()
    assert output_error(weight, ours, inputs) < 0.9 * output_error(weight, theirs, inputs)


@pytest.mark.parametrize("final", ["0.5", "0.6"])
def test_the_gradual_schedule_is_cubic_and_ends_at_the_target(final):
    reached = [float(admm.sparsity_at(t, Fraction(final), admm.Options())) for t in range(20)]
    expected = [float(final) * (1 - (1 - (t + 1) / 15) ** 3) for t in range(15)] + [float(final)] * 5
    assert reached == pytest.approx(expected, abs=1e-12)
    assert admm.sparsity_at(14, Fraction(final), admm.Options()) == Fraction(final)


def test_the_released_schedule_is_the_target_from_the_start_in_the_whole_matrix_path_only():
    def schedule(**options):
        return [admm.sparsity_at(t, Fraction("0.5"), admm.Options(**options)) for t in range(20)]

    assert set(schedule(schedule="as_released")) == {Fraction("0.5")}
    assert schedule(schedule="as_released", group="row") == schedule()
    assert schedule(schedule="as_released", pattern="2:4") == schedule()


def test_a_group_that_a_pattern_would_ignore_is_refused():
    with pytest.raises(UserError, match=r"admm.*group is 'row'.*2:4"):
        load_method("admm", {"group": "row", "pattern": "2:4"})


def test_the_two_schedules_give_different_masks_of_the_same_size(random_layer):
    layer, *_ = random_layer(12, 24, "0.6", seed=4)
    written, released = (
        admm.prune_layer(layer, admm.Options(schedule=name)).keep for name in ("gradual", "as_released")
    )
    assert not torch.equal(written, released)
    assert int(written.sum()) == int(released.sum())


def test_group_row_gives_each_row_its_share(make_layer, random_layer):
    _, weight, inputs = random_layer(7, 10, "0.5")
    layer = make_layer(weight * np.linspace(0.1, 4.0, 7)[:, None], inputs, "0.55")
    row, matrix = (admm.prune_layer(layer, admm.Options(group=name)).keep for name in ("row", "matrix"))
    assert set((~row).sum(dim=1).tolist()) == {5, 6}
    assert len(set((~matrix).sum(dim=1).tolist())) > 2
    assert int(row.sum()) == int(matrix.sum())


@pytest.mark.parametrize(
    ("option", "at_default"), [("rho", 1.0), ("damping", 0.1), ("iterations", 20), ("mask_iterations", 15)]
)
def test_each_option_has_the_documented_default_and_matters(option, at_default, random_layer):
    layer, *_ = random_layer(9, 16, "0.5", seed=3)
    assert getattr(admm.Options(), option) == at_default
    changed = admm.prune_layer(layer, admm.Options(**{option: type(at_default)(at_default * 0.8)}))
    assert not torch.equal(changed.values, admm.prune_layer(layer, admm.Options()).values)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("schedule", "cubic", "'gradual' or 'as_released'"), ("group", "column", "'matrix' or 'row'")],
)
def test_an_unknown_choice_is_an_error_that_names_the_allowed_ones(option, value, allowed):
    with pytest.raises(UserError, match=f"admm: {option} is '{value}'; allowed are {allowed}"):
        load_method("admm", {option: value})


@pytest.mark.parametrize("options", [{"iterations": 10}, {"mask_iterations": 0}, {"mask_iterations": 21}])
def test_iterations_that_would_end_before_the_target_are_refused(options):
    with pytest.raises(UserError, match="mask_iterations"):
        load_method("admm", options)
