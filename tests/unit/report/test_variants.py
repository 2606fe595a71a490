"""The table of variants: each beside its own method, at the sparsities where both ran."""

import math

import pandas as pd
import pytest

from leap_repro.report.variants import variants_table

METHODS = {
    "admm": {"module": "admm", "label": "ADMM", "variant_of": None},
    "admm-old": {"module": "admm", "label": "ADMM (old)", "variant_of": "admm"},
    "lone": {"module": "admm", "label": "Lone", "variant_of": "admm"},
}
SCORES = {("admm", 0.5): (3, 10.0), ("admm-old", 0.5): (1, 20.0), ("lone", 0.6): (2, 5.0)}
TASKS = ("piqa", "arc_easy")


def grid():
    results, outcomes = [], []
    for (method, sparsity), (right, ppl) in SCORES.items():
        for model, factor in (("a", 1.0), ("b", 4.0)):
            cell = {"model": model, "method": method, "sparsity_target": sparsity, "seed": 0}
            row = cell | {"sparsity_actual": sparsity - 0.01}
            results += [row | {"task": task, "metric": "acc", "value": 25.0 * right} for task in (*TASKS, "average")]
            results += [row | {"task": "perplexity", "metric": "perplexity@64", "value": ppl * factor}]
            for task in TASKS:
                outcomes += [
                    cell | {"task": task, "leaf": task, "index": i, "correct": int(i < right)} for i in range(4)
                ]
    return pd.DataFrame(results), pd.DataFrame(outcomes)


@pytest.fixture
def rows():
    return variants_table(*grid(), METHODS).numbers.set_index("method")


def test_the_difference_is_to_the_method_that_is_varied(rows):
    assert rows.loc["admm-old", "difference"] == pytest.approx(-50.0)
    assert rows.loc["admm-old", "perplexity_ratio"] == pytest.approx(2.0)
    assert rows.loc["admm-old", "sparsity_actual"] == pytest.approx(0.49)


def test_a_sparsity_without_the_method_has_no_difference(rows):
    assert math.isnan(rows.loc["lone", "difference"])
    assert math.isnan(rows.loc["lone", "perplexity_ratio"])
    assert rows.loc["lone", "average"] == 50.0


def test_the_methods_themselves_are_no_rows(rows):
    assert list(rows.index) == ["admm-old", "lone"]
    shown = variants_table(*grid(), METHODS).shown
    assert list(shown["Of"]) == ["ADMM", "ADMM"]
    assert shown["Δ"].iloc[0].startswith("−50.00 ±")
