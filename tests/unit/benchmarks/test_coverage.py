"""The intervals hold what the recorded simulation says, and its figures follow from what was put in."""

import numpy as np
import pandas as pd
import pytest
from scripts import loaded


@pytest.fixture(scope="module")
def coverage(project):
    """Not by its own name: another `coverage` measures tests."""
    with loaded(project / "benchmarks/coverage.py", "simulated_coverage") as module:
        yield module


@pytest.fixture(scope="module")
def recorded(project):
    return pd.read_csv(project / "benchmarks/coverage.csv", keep_default_na=False)


COLUMNS = {"both": "questions and seeds", "questions": "questions only", "first": "one seed", "bootstrap": "bootstrap"}


@pytest.mark.parametrize("case", [2, 4, 8, 10])
def test_a_smaller_simulation_finds_the_recorded_coverage(coverage, recorded, case):
    """One and ten cells, normal and binary answers; within four standard errors of both simulations."""
    sets = 300
    found, said = coverage.simulate(coverage.CASES[case], sets), recorded.iloc[case]
    for name, column in COLUMNS.items():
        share = said[column] / 100
        error = np.sqrt(max(share * (1 - share), 0.01) * (1 / sets + 1 / said["data sets"]))
        assert found[name].mean() == pytest.approx(share, abs=4 * error), column
    assert np.sqrt((found["stderr"] ** 2).mean()) == pytest.approx(said["true deviation"], rel=0.15)


def test_the_record_shows_what_the_page_says(recorded):
    """Where seeds are a half of the variance: ours holds, and what leaves seeds out does not."""
    plain = recorded[(recorded["special"] == "") & (recorded["seeds"] == 3)]
    ten, one = plain[plain["cells"] == 10], plain[plain["cells"] == 1]
    assert ten["questions and seeds"].between(93.5, 96.5).all()
    assert one["questions and seeds"].between(91, 97).all()
    halves = recorded["seeds' share of the variance"] > 0.4
    assert (recorded.loc[halves, "questions only"] < 90).all()
    assert (recorded.loc[halves, "one seed"] < 80).all()
    assert ten["p below 0.005"].max() < 1
    assert one["p below 0.005"].max() < 2
    assert one.loc[one["seeds' share of the variance"] > 0.7, "bootstrap"].item() < 89
    assert recorded.iloc[-1]["questions and seeds"] < 90, "seeds that models share"


def test_the_simulated_truth_and_variance_are_those_of_the_case(coverage):
    case = coverage.Case(2, 2, 0.6, answers="right or wrong")
    pairs = coverage.draw(case, 400, np.random.default_rng(0))
    means = pairs.mean(axis=(0, 1, 2))
    assert means.mean() == pytest.approx(case.truth(), abs=4 * means.std() / 20)
    case = coverage.Case(2, 2, 0.6)
    values = coverage.draw(case, 2000, np.random.default_rng(0)).mean(axis=(0, 1, 2)) / 100
    seeds = 2 * case.seed_variance() / (2 * 3)
    assert values.var() == pytest.approx(seeds / 0.6, rel=0.15)


def test_the_bootstraps_error_is_the_one_of_its_replicates(coverage):
    case, rng = coverage.Case(2, 1, 0.5), np.random.default_rng(0)
    pairs = coverage.draw(case, 1, rng)
    size, means = coverage.QUESTIONS, []
    for _ in range(4000):
        questions = np.concatenate([start + rng.integers(0, size, size) for start in np.arange(coverage.TASKS) * size])
        means.append(np.mean([of_model[questions][:, rng.integers(0, 3, 3)].mean() for of_model in pairs[..., 0]]))
    assert coverage.bootstrap_error(pairs)[0] == pytest.approx(np.std(means), rel=0.05)
