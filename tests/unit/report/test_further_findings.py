"""Perplexity, time and densities of a grid, against scipy and statsmodels."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from leap_repro.report import further_findings
from leap_repro.report.findings import FAILS, HOLDS, UNDECIDED, CollectedTables
from leap_repro.report.further_findings import cost, intraclass, lower_perplexity, uneven


def logs_of(evidence, method, reference):
    rows = evidence.results[evidence.results["task"] == "perplexity"]
    wide = rows.pivot(index=["model", "seed", "sparsity_target"], columns="method", values="value")
    return np.log(wide[method] / wide[reference]).groupby(["model", "seed"]).mean().unstack("seed")


@pytest.mark.parametrize(("ability", "expected"), [(0.9, HOLDS), (-0.9, FAILS), (0.0, UNDECIDED)])
def test_a_change_of_perplexity_is_a_geometric_mean_with_an_interval_over_seeds_and_one_over_models(
    drawn, ability, expected
):
    evidence = drawn({"leap": ability, "admm": 0.0}, models=("a", "b", "c"), luck=0.2)
    found, logs = lower_perplexity(evidence, "leap", "admm"), logs_of(evidence, "leap", "admm")
    error = math.sqrt((logs.var(axis=1, ddof=1) / 3).sum()) / 3
    ends = np.expm1(stats.t.interval(0.95, 6, logs.to_numpy().mean(), error))
    assert found.value == pytest.approx(100 * np.expm1(logs.to_numpy().mean()))
    assert (found.low, found.high) == pytest.approx(tuple(100 * ends))
    means = logs.mean(axis=1)
    over = np.expm1(stats.t.interval(0.95, 2, means.mean(), stats.sem(means)))
    assert (found.low_over_models, found.high_over_models) == pytest.approx(tuple(100 * over))
    assert found.verdict == expected
    assert found.measured.endswith("of 18 cells and seeds; 3 models at 50 %, 60 %; 3 seeds")


def test_the_longest_window_counts_and_one_seed_has_no_interval(drawn):
    evidence = drawn({"leap": 0.5, "admm": 0.0}, seeds={"leap": (0,), "admm": (0,)})
    found = lower_perplexity(evidence, "leap", "admm")
    assert (math.isnan(found.low), found.verdict, found.seeds) == (True, UNDECIDED, 1)
    shorter = evidence.results.replace({"metric": {"perplexity@64": "perplexity@8"}}).assign(value=1.0)
    both = replace(evidence, results=pd.concat([evidence.results, shorter[shorter["task"] == "perplexity"]]))
    assert lower_perplexity(both, "leap", "admm").value == found.value
    assert lower_perplexity(evidence, "leap", "ria") is None


def timed(totals):
    frame = pd.DataFrame({"stage": "prune", "method": [*totals], "jobs": 4, "total": [*totals.values()]})
    whole = pd.concat([frame, frame.assign(stage="harden", total=1.0)])
    return CollectedTables(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), {}, (), seconds=whole)


@pytest.mark.parametrize(("seconds", "expected"), [(80.0, HOLDS), (20.0, FAILS)])
def test_a_cost_is_the_ratio_of_the_mean_times_of_pruning(seconds, expected):
    found = cost(timed({"leap": seconds, "admm": 40.0}), "leap", "admm")
    assert (found.value, found.verdict) == (seconds / 40, expected)
    assert found.measured == f"{seconds / 4:.1f} s against 10.0 s a cell, means of 4 and 4 jobs"
    assert cost(timed({"leap": 80.0}), "leap", "admm") is None


def test_the_intraclass_correlation_is_that_of_shrout_and_fleiss():
    """Six targets and four judges, the example of their table 2; their table 4 has ICC(1, 1) = .17."""
    table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    value, low, high = intraclass(table, 0.95)
    assert value == pytest.approx(0.1657, abs=1e-4)
    ratio = stats.f_oneway(*table).statistic
    for end, at in ((low, 0.975), (high, 0.025)):
        beyond = ratio / stats.f.ppf(at, 5, 18)
        assert end == pytest.approx((beyond - 1) / (beyond + 3))
    assert intraclass(np.array([[1.0, 1.0], [2.0, 2.0]]), 0.95) == (1.0, 1.0, 1.0)


def densities(spread, seeds=3):
    """Of two cells with six matrices; in the second the seeds spread more."""
    rng, rows = np.random.default_rng(0), []
    for sparsity, noise in ((0.5, 0.01), (0.6, 0.05)):
        for block in range(6):
            for seed in range(seeds):
                share = 0.5 + spread * block + noise * rng.normal()
                cell = {"model": "a", "method": "leap", "sparsity_target": sparsity, "seed": seed}
                rows.append(cell | {"block": block, "kind": "q_proj", "kept": share * 1000, "numel": 1000})
    return CollectedTables(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), {}, (0.5, 0.6), density=pd.DataFrame(rows))


def test_densities_are_uneven_where_matrices_differ_by_more_than_seeds_in_every_cell():
    found = uneven(densities(0.1), "leap")
    assert found.verdict == HOLDS
    assert found.measured == "a at 60 %, the smallest of 2 cells; 6 matrices, 3 seeds"
    assert 0 < found.low < found.value < found.high < 1
    assert uneven(densities(0.0), "leap").verdict != HOLDS
    assert uneven(densities(0.1, seeds=1), "leap") is None
    assert uneven(densities(0.1), "magnitude") is None
    assert further_findings.uneven(timed({}), "leap") is None
