"""Lines beside their base, LEAP and ADMM: one row per sparsity at which a line ran."""

import json
import math

import pandas as pd
import pytest

from leap_repro.report import crossings, differences, tables
from leap_repro.report.collect import OUTCOMES, RESULTS
from leap_repro.report.crossings import crossings_table
from leap_repro.store.artifacts import writing

METHODS = {
    "admm": {"module": "admm", "label": "ADMM", "variant_of": None},
    "leap": {"module": "leap", "label": "LEAP", "variant_of": None},
    "admm+leap-budget": {"module": "admm", "label": "ADMM+budget", "variant_of": "admm", "changes": "LEAP's budgets"},
    "owl": {"module": "owl", "label": "OWL", "variant_of": None, "changes": ""},
}
RIGHT = {
    ("admm", 0.5): (3, 4, 5),
    ("leap", 0.5): (6, 6, 6),
    ("admm+leap-budget", 0.5): (5, 6, 7),
    ("owl", 0.5): (2,),
    ("owl", 0.6): (1,),
}
"""Right answers of eight, by seed, in both tasks and models."""
TASKS = ("piqa", "arc_easy")


def grid():
    results, outcomes = [], []
    for (method, sparsity), counts in RIGHT.items():
        for model in ("a", "b"):
            for seed, right in enumerate(counts):
                cell = {"model": model, "method": method, "sparsity_target": sparsity, "seed": seed}
                row = cell | {"sparsity_actual": sparsity}
                for task in (*TASKS, "average"):
                    results.append(row | {"task": task, "metric": "acc", "value": 12.5 * right})
                results.append(row | {"task": "perplexity", "metric": "perplexity@64", "value": 40.0 / right})
                for task in TASKS:
                    answers = [{"task": task, "leaf": task, "index": i, "correct": int(i < right)} for i in range(8)]
                    outcomes += [cell | answer for answer in answers]
    return pd.DataFrame(results), pd.DataFrame(outcomes)


@pytest.fixture
def table():
    return crossings_table(*grid(), METHODS, ["owl", "admm+leap-budget", "leap"])


def test_rows_are_the_lines_in_their_order_at_every_sparsity_where_they_ran(table):
    assert list(table.shown["Line"]) == ["OWL", "OWL", "ADMM+budget", "LEAP"]
    assert list(table.shown["Sparsity"]) == ["50 %", "60 %", "50 %", "50 %"]
    assert list(table.shown["Of"]) == ["", "", "ADMM", ""]
    assert table.shown["What it changes"].iloc[2] == "LEAP's budgets"


def test_an_average_has_its_deviation_over_seeds(table):
    """Seeds are drawn for each model: two models' mean spreads less by the root of two."""
    assert list(table.shown["Average"]) == ["25.00", "12.50", f"75.00 ± {12.5 / math.sqrt(2):.2f}", "75.00 ± 0.00"]


def test_differences_are_to_base_leap_and_admm(table):
    rows = table.numbers.set_index(["method", "sparsity_target"])
    crossed = rows.loc[("admm+leap-budget", 0.5)]
    assert crossed["minus_base"] == crossed["minus_admm"] == pytest.approx(25.0)
    assert crossed["minus_leap"] == pytest.approx(0.0)
    assert crossed["seeds_minus_base"] == 3
    assert crossed["perplexity_ratio"] == pytest.approx((1 / 5 + 1 / 6 + 1 / 7) / (1 / 3 + 1 / 4 + 1 / 5))
    assert rows.loc[("leap", 0.5), "minus_admm"] == pytest.approx(25.0)


def test_a_line_that_ran_once_stands_beside_every_seed(table):
    row = table.numbers.set_index(["method", "sparsity_target"]).loc[("owl", 0.5)]
    assert row["minus_admm"] == pytest.approx(12.5 * (2 - 4)), "ADMM's mean"
    assert row["seeds_minus_admm"] == 1


def test_intervals_over_models_are_in_the_csv_and_what_trains_weights_is_marked(table):
    assert {"low_over_models_minus_leap", "high_over_models_minus_admm"} <= set(table.numbers)
    assert "†" not in table.markdown()
    methods = METHODS | {"owl": METHODS["owl"] | {"trains_weights": True}}
    marked = crossings_table(*grid(), methods, ["owl", "leap"])
    assert list(marked.shown["Line"]) == ["OWL †", "OWL †", "LEAP"]
    assert marked.notes.endswith("†: trains the kept weights.")
    assert r"OWL \dag{}" in marked.latex()


def test_what_there_is_nothing_to_compare_with_is_empty(table):
    assert list(table.shown["Δ of"].iloc[[0, 1, 3]]) == ["", "", ""]
    assert table.shown["Δ LEAP"].iloc[3] == "", "LEAP itself"
    assert table.shown["Δ ADMM"].iloc[1] == "", "no ADMM at 60 %"
    assert table.shown["PPL ratio"].iloc[0] == ""


def test_a_grid_without_leap_has_no_such_column():
    results, outcomes = (frame[frame["method"] != "leap"] for frame in grid())
    methods = {name: facts for name, facts in METHODS.items() if name != "leap"}
    assert "Δ LEAP" not in crossings_table(results, outcomes, methods, ["owl"]).shown


def test_a_difference_that_another_column_says_is_shown_once():
    table = crossings_table(*grid(), METHODS, ["admm+leap-budget"])
    assert [column for column in table.shown if column.startswith("Δ")] == ["Δ LEAP", "Δ ADMM"]
    assert table.numbers["minus_base"].equals(table.numbers["minus_admm"]), "and in numbers where it is looked up"


def test_a_line_that_the_grid_lacks_is_refused(refused):
    with refused("--lines", "'wanda'", "admm+leap-budget"):
        crossings_table(*grid(), METHODS, ["wanda"])


@pytest.fixture
def root(tmp_path):
    """The grid as it is collected, a folder for each model."""
    sizes = {"prunable": 90, "block_parameters": 100, "parameters": 180, "protocol": "zero-shot"}
    for model in ("a", "b"):
        with writing(tmp_path / "aggregate" / model, {}) as (payload, _):
            for frame, name in zip(grid(), (RESULTS, OUTCOMES), strict=True):
                more = sizes if name == RESULTS else {}
                frame[frame["model"] == model].assign(**more).to_parquet(payload / name, index=False)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "own", "starts"),
    [
        (tables, ["main"], "Average accuracy"),
        (differences, ["--stands-for", json.dumps({"a": "Qwen-2.5 0.5B"})], "LEAP minus ADMM"),
        (crossings, ["--lines", "owl", "leap"], "Variants beside their base"),
    ],
)
def test_the_commands_read_what_was_collected_and_write_the_table(root, module, own, starts):
    given = [*own, "--root", root, "--models", "a", "b", "--methods", json.dumps(METHODS), "--output", root / "table"]
    module.main(module.parser().parse_args([str(argument) for argument in given]))
    assert (root / "table.md").read_text(encoding="utf-8").startswith(starts)
    assert all((root / f"table.{suffix}").is_file() for suffix in ("csv", "tex", "html"))
