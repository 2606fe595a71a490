"""The paired difference against a computation by hand, and against what its standard error must mean."""

import math

import numpy as np
import pandas as pd
import pytest

from leap_repro.aggregate.statistics import over_seeds, paired_difference


def outcomes(correct):
    """{(method, model, seed): {task: [0/1, ...]}} as the long table."""
    return pd.DataFrame(
        {"method": method, "model": model, "seed": seed, "task": task, "leaf": task, "index": index, "correct": hit}
        for (method, model, seed), tasks in correct.items()
        for task, hits in tasks.items()
        for index, hit in enumerate(hits)
    )


def test_difference_and_error_of_two_tasks_by_hand():
    table = outcomes(
        {
            ("leap", "m", 0): {"piqa": [1, 1, 0, 1], "mmlu": [0, 1]},
            ("admm", "m", 0): {"piqa": [1, 0, 0, 0], "mmlu": [1, 1]},
        }
    )
    value, stderr = paired_difference(table, "leap", "admm")
    # piqa: differences 0 1 0 1, mean 50, variance 1/3; mmlu: -1 0, mean -50, variance 1/2 (in units of 100 points)
    assert value == pytest.approx(0.0)
    assert stderr == pytest.approx(100 * math.sqrt((1 / 3 / 4 + 1 / 2 / 2) / 4))


def test_tasks_weigh_the_same_whatever_their_size():
    table = outcomes(
        {
            ("leap", "m", 0): {"piqa": [1] * 10, "mmlu": [0] * 1000},
            ("admm", "m", 0): {"piqa": [0] * 10, "mmlu": [0] * 1000},
        }
    )
    assert paired_difference(table, "leap", "admm")[0] == pytest.approx(50.0)


def test_a_method_that_is_absent_has_no_difference():
    table = outcomes({("leap", "m", 0): {"piqa": [1, 0]}})
    assert all(math.isnan(part) for part in paired_difference(table, "leap", "admm"))


def test_the_error_is_the_spread_of_repeated_experiments():
    """Draw many test sets of shared-difficulty questions: the reported error matches the real spread of differences."""
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(300):
        difficulty = rng.random(200)
        hits = {
            (method, model, 0): {task: (rng.random(200) < difficulty * scale).astype(int) for task in ("piqa", "mmlu")}
            for method, scale in (("leap", 1.0), ("admm", 0.9))
            for model in ("a", "b")
        }
        value, error = paired_difference(outcomes(hits), "leap", "admm")
        values.append(value)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)


def test_seeds_are_averaged_and_their_spread_is_kept():
    rows = pd.DataFrame(
        {
            "model": "m",
            "method": "leap",
            "sparsity_target": 0.5,
            "task": "average",
            "metric": "acc",
            "value": [60.0, 62.0, 64.0],
            "seed": [0, 1, 2],
            "sparsity_actual": 0.5,
        }
    )
    row = over_seeds(rows).iloc[0]
    assert (row["value"], row["sd"], row["seeds"]) == (62.0, 2.0, 3)
