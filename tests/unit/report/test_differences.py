"""LEAP minus ADMM cell by cell, the family of p-values, and the means of models and of cells."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from leap_repro.report.differences import ALL, MEAN, _shown, differences_table
from leap_repro.report.layout import format_p
from leap_repro.report.render import Table
from leap_repro.report.statistics import mean_over_cells

METHODS = {
    name: {"module": name, "label": label, "variant_of": None, "seeded": name not in ("dense", "magnitude")}
    for name, label in (
        ("dense", "Dense"),
        ("magnitude", "Magnitude"),
        ("admm", "ADMM"),
        ("maskllm", "MaskLLM (2:4)"),
        ("leap", "LEAP"),
    )
}
METHODS["leap-old"] = {"module": "leap", "label": "LEAP (old)", "variant_of": "leap"}
STANDS_FOR = {"small": "Qwen-2.5 0.5B", "large": "LLaMA-3.2 3B"}
TASKS = {"piqa": 30, "mmlu": 50}
MEANS = {"dense": 2.0, "magnitude": 0.1, "admm": 0.4, "maskllm": 0.3, "leap": 0.9, "leap-old": 0.9}


def drawn(seeds=(0, 1, 2), curve=()):
    """Answers of every method; `curve` are sparsities at which only the first seed ran."""
    rng = np.random.default_rng(0)
    difficulty = {(model, task): rng.normal(size=size) for model in STANDS_FOR for task, size in TASKS.items()}
    rows = []
    for model in STANDS_FOR:
        for method, mean in MEANS.items():
            sparsities = [0.0] if method == "dense" else [0.5] if method == "maskllm" else [0.5, 0.6, *curve]
            for sparsity in sparsities:
                many = METHODS[method].get("seeded", True) and sparsity not in curve
                for seed in seeds if many else [0]:
                    luck = mean + 0.3 * rng.normal()
                    for task, size in TASKS.items():
                        right = difficulty[model, task] + luck + 0.5 * rng.normal(size=size) > 0
                        cell = {"model": model, "method": method, "sparsity_target": sparsity, "seed": seed}
                        rows.append(
                            pd.DataFrame(cell | {"task": task, "leaf": task, "index": range(size), "correct": right})
                        )
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module")
def answers():
    return drawn()


@pytest.fixture(scope="module")
def table(answers):
    return differences_table(answers, METHODS, STANDS_FOR)


def average(answers, **cell):
    """The mean of the tasks' accuracies, all seeds together."""
    here = answers
    for key, value in cell.items():
        here = here[here[key] == value]
    return 100 * here.groupby("task")["correct"].mean().mean()


def test_rows_are_the_models_by_sparsity_then_their_mean_and_at_last_all_cells(table):
    one = ["small", "large", MEAN]
    assert list(table.shown["Model"]) == [*one, *one, ALL]
    assert list(table.shown["Sparsity"]) == ["50 %"] * 3 + ["60 %"] * 3 + [""]
    assert set(table.shown["Seeds"]) == {"3"}
    assert set(table.shown["Questions"]) == {"80"}


def test_a_difference_is_that_of_the_averages(table, answers):
    rows = table.numbers[table.numbers["method"] == "leap"].set_index(["sparsity_target", "model"])
    cells = {}
    for sparsity in (0.5, 0.6):
        for model in STANDS_FOR:
            ours, theirs = (
                average(answers, model=model, method=method, sparsity_target=sparsity) for method in ("leap", "admm")
            )
            cells[sparsity, model] = ours - theirs
            assert rows.loc[(sparsity, model), "difference"] == pytest.approx(ours - theirs)
        mean = np.mean([value for (s, _), value in cells.items() if s == sparsity])
        assert rows.loc[(sparsity, MEAN), "difference"] == pytest.approx(mean)
    last = table.numbers[table.numbers["method"] == "leap"].iloc[-1]
    assert last["difference"] == pytest.approx(np.mean(list(cells.values())))
    kept = answers[answers["sparsity_target"].isin([0.5, 0.6])]
    assert last["stderr"] == mean_over_cells(kept, "leap", "admm").stderr


def test_interval_and_p_follow_from_difference_error_and_degrees(table):
    for row in table.numbers.itertuples():
        low, high = stats.t.interval(0.95, row.dof, row.difference, row.stderr)
        assert (row.low, row.high) == pytest.approx((low, high))
        assert row.p == pytest.approx(2 * stats.t.sf(abs(row.difference) / row.stderr, row.dof))


def test_holm_is_over_the_cells_of_a_method_and_over_no_mean(table):
    for _, own in table.numbers.groupby("method"):
        cells = own[~own["model"].isin([MEAN, ALL])].sort_values("p")
        assert own.loc[own["model"].isin([MEAN, ALL]), "p_holm"].isna().all()
        worst = 0
        for step, row in enumerate(cells.itertuples()):
            worst = max(worst, min(1, (len(cells) - step) * row.p))
            assert row.p_holm == pytest.approx(worst)


def test_the_published_differences_stand_beside(table):
    rows = table.numbers[table.numbers["method"] == "leap"].set_index(["sparsity_target", "model"])["published"]
    small, large = 44.53 - 42.28, 54.44 - 52.28
    assert rows[0.5, "small"] == pytest.approx(small)
    assert rows[0.5, MEAN] == pytest.approx((small + large) / 2)
    assert table.shown["Published Δ"].iloc[0] == "+2.25"
    assert rows.iloc[-1] == pytest.approx(np.mean([small, large, 41.53 - 38.33, 50.39 - 44.99]))


def test_a_model_that_stands_for_none_leaves_the_means_without_a_published_one(answers):
    table = differences_table(answers, METHODS, {"small": "Qwen-2.5 0.5B", "large": None})
    assert list(table.shown["Published Δ"]) == ["+2.25", "", "", "+3.20", "", "", ""]


def test_the_ten_cells_of_the_paper_have_its_headline():
    """All five models at both sparsities, whatever was answered."""
    stands_for = {
        name: name for name in ("Qwen-2.5 0.5B", "Gemma-3 1B", "LLaMA-3.2 1B", "LLaMA-3.2 3B", "LLaMA-3.1 8B")
    }
    answers = drawn(seeds=(0,))
    own = answers[(answers["model"] == "small") & answers["method"].isin(["leap", "admm"])]
    table = differences_table(pd.concat([own.assign(model=name) for name in stands_for]), METHODS, stands_for)
    assert table.shown["Published Δ"].iloc[-1] == "+2.59"
    assert table.numbers["p_holm"].notna().sum() == 10


def test_every_method_that_prunes_is_in_the_csv_and_leap_alone_is_shown(table):
    assert list(dict.fromkeys(table.numbers["method"])) == ["magnitude", "maskllm", "leap"]
    assert len(table.shown) == 7
    alone = table.numbers[table.numbers["method"] == "maskllm"]
    assert list(alone["model"]) == ["small", "large", MEAN], "one sparsity: its mean is that of all cells"
    assert table.numbers.loc[table.numbers["method"] == "magnitude", "seeds"].eq(3).all(), "ADMM's"


def test_a_curve_of_one_seed_beside_the_cells_is_left_out(table):
    more = differences_table(drawn(curve=(0.7,)), METHODS, STANDS_FOR)
    assert set(more.numbers["sparsity_target"].dropna()) == {0.5, 0.6}
    assert set(more.numbers["seeds"]) == {3}


def test_one_seed_is_said():
    table = differences_table(drawn(seeds=(0,)), METHODS, STANDS_FOR)
    assert set(table.shown["Seeds"]) == {"1"}
    assert "covers questions only: there is one seed" in table.notes
    assert "4 cells together" in table.notes


@pytest.mark.parametrize("without", ["leap", "admm"])
def test_a_grid_without_one_of_them_has_an_empty_table(answers, without, tmp_path):
    methods = {name: facts for name, facts in METHODS.items() if facts["module"] != without}
    table = differences_table(answers[answers["method"].isin(methods)], methods)
    assert table.shown.empty
    table.write(tmp_path / "differences")
    assert "LEAP minus ADMM" in (tmp_path / "differences.md").read_text()


def test_small_p_values_are_bounds_that_latex_can_set(table):
    assert format_p(0.0009) == "< .001"
    assert format_p(0.0449) == ".045"
    assert (format_p(1.0), format_p(math.nan)) == ("1.000", "")
    assert list(table.shown["p"]) == [format_p(p) for p in table.numbers["p"][-7:]]
    few = table.numbers.assign(p=1e-9)
    assert "$<$ .001" in Table("", _shown(few), few).latex()


def test_the_means_have_an_interval_over_models(table):
    rows = table.numbers[table.numbers["method"] == "leap"]
    for sparsity in (0.5, 0.6):
        cells = rows[(rows["sparsity_target"] == sparsity) & ~rows["model"].isin([MEAN])]["difference"]
        mean = rows[(rows["sparsity_target"] == sparsity) & (rows["model"] == MEAN)].iloc[0]
        expected = stats.t.interval(0.95, 1, cells.mean(), stats.sem(cells))
        assert (mean["low_over_models"], mean["high_over_models"]) == pytest.approx(expected)
    assert rows.loc[~rows["model"].isin([MEAN, ALL]), "low_over_models"].isna().all()
    assert list(table.shown["95 % over models"])[:2] == ["", ""]
