"""OPTIMA's public solver as ours: MPAX's own answers, stored by the benchmark; bounded least squares; rows alone."""

from __future__ import annotations

import sys
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import lsq_linear

from leap_repro.prune.layerwise import first_order
from leap_repro.prune.layerwise.first_order import solve_as_released
from leap_repro.prune.layerwise.masked_solve import solve_exactly
from leap_repro.prune.methods import optima, wanda

BENCHMARKS = Path(__file__).resolve().parents[4] / "benchmarks"
THEIRS = pd.read_csv(BENCHMARKS / "optima_released.csv")
"""What MPAX made of eight layers."""


@pytest.fixture
def measure(monkeypatch):
    """The benchmarks' layers."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield import_module("measure")
    sys.modules.pop("measure")


@pytest.fixture
def problem():
    """(rows, columns, dtype) -> C, weights and a mask that keeps about half; features correlated, of different size."""

    def build(rows, columns, dtype=torch.float64, seed=0, scale=1.0):
        generator = np.random.default_rng(seed)
        mixing = np.eye(columns) + generator.standard_normal((columns, columns)) / np.sqrt(columns)
        inputs = generator.standard_normal((4 * columns, columns)) @ mixing * generator.uniform(0.3, 3.0, columns)
        weight = scale * generator.standard_normal((rows, columns))
        keep = torch.from_numpy(generator.random((rows, columns)) < 0.5)
        covariance = inputs.T @ inputs / len(inputs)
        return torch.from_numpy(covariance).to(dtype), torch.from_numpy(weight).to(dtype), keep

    return build


def loss(covariance, change):
    change = change.double()
    return float(((change @ covariance.double()) * change).sum())


@pytest.mark.parametrize("row", THEIRS.index)
def test_steps_and_gain_are_those_of_the_public_solver(row, measure):
    """The gain over plain masking as a share of the exact one, after rounding to bfloat16 as the public code does."""
    theirs = THEIRS.loc[row]
    layer = measure.resize(measure.make_layer(64, 256, Fraction(1, 2)), theirs["inputs_rms"], theirs["weights_rms"])
    keep = wanda.prune_layer(layer, wanda.Options()).keep
    exact, _ = optima.optimal_values(layer, keep, optima.Options())
    options = optima.Options(solver="as_released", tolerance=theirs["tolerance"])
    ours, log = optima.released_values(layer, keep, options)
    assert log["iterations"] == theirs["iterations"]
    assert log["converged_rows"] == 1
    lost = [loss(layer.statistics.gram, v - layer.weight) for v in (layer.weight * keep, ours, exact)]
    assert (lost[0] - lost[1]) / (lost[0] - lost[2]) == pytest.approx(theirs["in_bfloat16"], abs=2e-4)
    assert theirs["our_iterations"] == theirs["iterations"]
    assert theirs["ours"] == pytest.approx(theirs["in_bfloat16"], abs=2e-4)


@pytest.mark.parametrize("seed", range(3))
def test_it_converges_to_bounded_least_squares_as_its_tolerance_falls(problem, seed):
    """Dropped weights may stop anywhere in their window, so the optimum is that of a bounded problem."""
    covariance, weight, keep = problem(5, 24, seed=seed)
    root = np.linalg.cholesky(covariance.numpy()).T
    low = np.where(keep, -np.inf, -weight)
    high = np.where(keep, np.inf, -weight + first_order.WINDOW)
    best = [lsq_linear(root, np.zeros(24), bounds, tol=1e-14).x for bounds in zip(low, high, strict=True)]
    errors = []
    for tolerance in (1e-2, 1e-4, 1e-6):
        found = solve_as_released(covariance, weight, keep, tolerance)
        assert found.converged.all()
        errors.append(float((found.change - torch.from_numpy(np.array(best))).abs().max()))
    assert errors[2] < 1e-4
    assert errors[2] < errors[1] < errors[0]


def test_without_a_window_it_converges_to_the_exact_solve(problem, monkeypatch):
    monkeypatch.setattr(first_order, "WINDOW", 0.0)
    covariance, weight, keep = problem(6, 32)
    exact = solve_exactly(covariance, (weight * ~keep) @ covariance, keep, "a layer") - weight * ~keep
    found = solve_as_released(covariance, weight, keep, 1e-8)
    torch.testing.assert_close(found.change, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.05])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-5])
def test_the_answer_lies_within_its_bounds_and_meets_the_tolerance(problem, scale, tolerance):
    covariance, weight, keep = problem(8, 40, scale=scale)
    change = solve_as_released(covariance, weight, keep, tolerance).change
    gradient = change @ covariance
    for row, kept in zip(gradient, keep, strict=True):
        # 64 steps on from where it was met, not monotone
        assert row[kept].abs().max() < 2 * tolerance * (1 + row.abs().max())
    behind, beyond = -weight - change, change - (first_order.WINDOW - weight)
    assert float(torch.maximum(behind, beyond)[~keep].max()) < 1e-9


def test_small_inputs_are_left_unsolved_at_an_absolute_tolerance(problem):
    """Why the public code recovers a share only: the first look already finds the tolerance met."""
    covariance, weight, keep = problem(8, 40, torch.float32, scale=0.05)
    steps = [solve_as_released(size**2 * covariance, weight, keep, 1e-3).iterations for size in (1e-2, 1, 10)]
    assert steps[0] == first_order.FIRST + first_order.BETWEEN
    assert steps[0] < steps[1] <= steps[2]


def test_a_row_is_solved_alike_in_any_company(problem):
    covariance, weight, keep = problem(9, 32)
    together = solve_as_released(covariance, weight, keep, 1e-4)
    alone = [solve_as_released(covariance, weight[i : i + 1], keep[i : i + 1], 1e-4) for i in range(9)]
    torch.testing.assert_close(torch.cat([row.change for row in alone]), together.change, rtol=1e-9, atol=1e-11)
    assert len({row.iterations for row in alone}) > 1, "rows that end together show nothing"
    assert max(row.iterations for row in alone) == together.iterations


def test_rows_that_run_out_of_steps_are_counted(problem, monkeypatch):
    monkeypatch.setattr(first_order, "LIMIT", 200)
    covariance, weight, keep = problem(10, 48, scale=100.0)
    keep[:3] = True  # nothing dropped, nothing to solve
    found = solve_as_released(covariance, weight, keep, 1e-9)
    assert found.converged.tolist() == [True] * 3 + [False] * 7
    assert torch.isfinite(found.change).all()
    assert not found.change[:3].any()


def test_the_norm_is_estimated_within_its_error(problem):
    for seed in range(5):
        covariance, *_ = problem(1, 64, seed=seed)
        true = float(torch.linalg.eigvalsh(covariance)[-1])
        assert 0.9 * true <= float(first_order._estimated_norm(covariance)) <= true * (1 + 1e-9)
    assert float(first_order._estimated_norm(torch.zeros(4, 4))) == 0
