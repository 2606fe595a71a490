"""Figures from made-up data: what is plotted is what was counted, and each says that its masks are hard."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from leap_repro.errors import UserError
from leap_repro.report.figures import accuracy, density, density_by_kind
from leap_repro.report.figures.style import (
    ADMM_LOOK,
    BUDGETS,
    LEAP_LOOK,
    OTHERS,
    SINGLE,
    looks,
    only_method,
    save,
    use_style,
)

BLOCKS = pd.DataFrame(
    {"model": model, "method": method, "sparsity_target": sparsity, "seed": seed, "block": block, "kind": kind}
    | {"kept": kept + 10 * block + 2 * seed, "numel": numel}
    for model in ("a", "b")
    for method in ("leap", "wanda")
    for sparsity in (0.5, 0.6)
    for seed in (0, 1)
    for block in range(3)
    for kind, kept, numel in (("down_proj", 10, 60), ("router", 20, 20), ("q_proj", 10, 20))
)


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


def levels(axis):
    return [line.get_ydata()[0] for line in axis.lines if len(set(line.get_ydata())) == 1]


def test_density_is_the_mean_over_seeds_of_leaps_blocks():
    data = density.densities(BLOCKS, "leap", "block")
    block = data.loc[(data["model"] == "a") & (data["sparsity_target"] == 0.5), "mean"]
    assert list(block) == [43.0, 73.0, 103.0]  # (40 + 3 * 10 block + 3 * 2 seed) of 100, seeds 0 and 1
    assert set(data["budget"]) == {50.0, 40.0}


def test_density_figure_has_a_panel_per_model_and_a_budget_line_per_sparsity():
    figure = density.plot(density.densities(BLOCKS, "leap", "block"), "LEAP")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["a", "b"]
    for axis in shown:
        assert {50.0, 40.0} <= set(levels(axis))
    assert "hard mask" in words(figure)
    assert "global budget" in words(figure)


def test_density_without_leap_is_refused():
    with pytest.raises(UserError, match="leap"):
        density.densities(BLOCKS[BLOCKS["method"] == "wanda"], "leap", "block")


def test_density_by_kind_sums_blocks_and_keeps_the_order_of_kinds():
    data = density_by_kind.by_kind(BLOCKS, "leap")
    panel = data[(data["model"] == "a") & (data["sparsity_target"] == 0.5)]
    assert list(panel["kind"]) == ["q_proj", "down_proj", "router"]
    # kept over blocks: 3 kept + 30 + 6 seed, of 3 numel; the means of seeds 0 and 1
    assert list(panel["mean"]) == pytest.approx([100 * 63 / 60, 100 * 63 / 180, 100 * 93 / 60])
    assert list(panel["std"]) == pytest.approx([100 * 6 / numel / 2**0.5 for numel in (60, 180, 60)])


def test_density_by_kind_plots_points_that_are_not_joined_and_the_budgets():
    figure = density_by_kind.plot(density_by_kind.by_kind(BLOCKS, "leap"), "LEAP")
    axis = figure.axes[0]
    assert {50.0, 40.0} <= set(levels(axis))
    assert [text.get_text() for text in axis.get_xticklabels()] == ["q", "down", "router"]
    assert {line.get_linestyle() for line in axis.containers[0].lines[:1]} == {"None"}
    assert "hard mask" in words(figure)


METHODS = {
    name: {"module": name, "label": name.upper(), "variant_of": None} for name in ("dense", "magnitude", "admm", "leap")
}
QUESTIONS = 4
RIGHT = {  # of four questions a task, by seed
    ("a", "dense", 0.0): [3],
    ("a", "magnitude", 0.5): [1],
    ("a", "admm", 0.5): [2, 2],
    ("a", "leap", 0.5): [2, 3],
    ("b", "dense", 0.0): [4],
    ("b", "magnitude", 0.5): [2],
    ("b", "admm", 0.5): [1, 3],
    ("b", "admm", 0.6): [1, 1],
    ("b", "leap", 0.5): [4, 3],
}


UNUSED = {"metric": "acc", "sparsity_actual": 0.5}


def frames():
    """(results, outcomes) of two tasks of four questions: a cell answers the first RIGHT of each."""
    results, outcomes = [], []
    for (model, method, sparsity), seeds in RIGHT.items():
        for seed, right in enumerate(seeds):
            cell = {"model": model, "method": method, "sparsity_target": sparsity, "seed": seed}
            results.append(cell | {"task": "average", "value": 100 * right / QUESTIONS} | UNUSED)
            for task in ("piqa", "mmlu"):
                for index in range(QUESTIONS):
                    outcomes.append(cell | {"task": task, "leaf": task, "index": index, "correct": int(index < right)})
    return pd.DataFrame(results), pd.DataFrame(outcomes)


def averages(models=("a", "b")):
    return accuracy.averages(*(frame[frame["model"].isin(models)] for frame in frames()))


def cell(data, *key):
    return data.set_index(accuracy.CELL).loc[key]


def test_accuracy_is_the_mean_over_seeds_and_tells_their_standard_deviation():
    found = cell(averages(), "a", "leap", 0.5)
    assert found["value"] == 62.5
    assert found["sd"] == pytest.approx(np.std([50, 75], ddof=1))
    assert found["seeds"] == 2


def test_bars_are_standard_errors_over_questions_with_one_seed_or_more():
    one, two = (cell(averages(), "a", method, 0.5)["error"] for method in ("magnitude", "leap"))
    assert one == pytest.approx(100 * np.sqrt(0.25 * 0.75 / 3 / 2))  # two tasks, p (1 - p) / (n - 1) each
    answers = [1, 1, 0.5, 0]  # the mean of both seeds, question by question
    assert two == pytest.approx(100 * np.sqrt(np.var(answers, ddof=1) / QUESTIONS / 2))


def test_accuracy_adds_the_mean_of_the_models_where_a_method_ran_on_all():
    data = averages()
    assert cell(data, accuracy.MEAN, "dense", 0.0)["value"] == 87.5
    leap = cell(data, accuracy.MEAN, "leap", 0.5)  # 2 and 3 of 4, 4 and 3 of 4; seeds are drawn for each model
    assert leap["value"] == 75.0
    assert leap["sd"] == pytest.approx(np.sqrt(2 * np.var([50, 75], ddof=1)) / 2)
    answers = [1, 0.5, 0, 0]  # the mean of both models, question by question
    found = cell(data, accuracy.MEAN, "magnitude", 0.5)["error"]
    assert found == pytest.approx(100 * np.sqrt(np.var(answers, ddof=1) / QUESTIONS / 2))
    assert (accuracy.MEAN, "admm", 0.6) not in data.set_index(accuracy.CELL).index


def test_accuracy_starts_at_the_least_pruned_sparsity_with_dense_as_a_line():
    use_style()
    figure = accuracy.plot(averages(), METHODS)
    axis = figure.axes[1]  # model b
    assert 100.0 in levels(axis)
    assert list(axis.get_xticks()) == [50.0, 60.0]
    curve = next(drawn for drawn in axis.containers if drawn.get_label() == "ADMM")
    assert [list(values) for values in curve.lines[0].get_data()] == [[50.0, 60.0], [50.0, 25.0]]
    assert "dense 100.0" in words(figure)
    assert "hardened masks" in words(figure)


def test_points_of_a_single_sparsity_stand_side_by_side():
    figure = accuracy.plot(averages(["a"]), METHODS)
    places = [float(drawn.lines[0].get_xdata()[0]) for drawn in figure.axes[0].containers]
    assert places == [49.0, 50.0, 51.0]
    assert list(figure.axes[0].get_xticks()) == [50.0]


def test_accuracy_has_one_y_axis_and_says_what_its_bars_are():
    figure = accuracy.plot(averages(), METHODS)
    assert len({axis.get_ylim() for axis in figure.axes if axis.get_visible()}) == 1
    assert accuracy.BARS in words(figure)


def test_the_legend_goes_by_sparsity_and_ends_with_the_budget():
    """Whatever the first panel has: model a was not pruned to 40 %."""
    blocks = pd.concat([BLOCKS, BLOCKS[BLOCKS["model"] == "b"].assign(sparsity_target=0.4)])
    data = density.densities(blocks, "leap", "block")
    figure = density.plot(data, "LEAP")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*(f"LEAP, {sparsity} % sparse" for sparsity in (40, 50, 60)), "global budget"]
    looks = [
        {drawn.get_label(): drawn.lines[0].get_color() for drawn in axis.containers}
        for axis in figure.axes
        if axis.get_visible()
    ]
    assert looks[0].items() <= looks[1].items(), "a sparsity looks alike in every panel"


def test_leap_is_drawn_last_thickest_and_in_its_own_colour():
    use_style()
    figure = accuracy.plot(averages(), METHODS)
    curves = {drawn.get_label(): drawn.lines[0] for drawn in figure.axes[0].containers}
    leap = curves.pop("LEAP")
    assert leap.get_color() == LEAP_LOOK["color"]
    for other in curves.values():
        assert other.get_color() != leap.get_color()
        assert other.get_linewidth() < leap.get_linewidth()
        assert other.get_zorder() < leap.get_zorder()


def test_a_grid_calls_leap_and_admm_as_it_likes():
    methods = {"mine": METHODS["leap"], "theirs": METHODS["admm"], "dense": METHODS["dense"], "w": METHODS["magnitude"]}
    assert looks(methods) == {"mine": LEAP_LOOK, "theirs": ADMM_LOOK, "w": OTHERS[0]}


@pytest.mark.parametrize("series", [(LEAP_LOOK, ADMM_LOOK, *OTHERS), BUDGETS])
def test_series_differ_without_colour(series):
    assert len({(look["marker"], look["linestyle"]) for look in series}) == len(series)


def test_a_figure_of_one_method_refuses_several():
    with pytest.raises(UserError, match="density figure shows one method"):
        only_method("density", METHODS)


def drawings():
    data = averages()
    kinds = density_by_kind.by_kind(BLOCKS, "leap")
    return {
        "accuracy": (accuracy.plot(data, METHODS), data),
        "density": (density.plot(density.densities(BLOCKS, "leap", "block"), "LEAP"), kinds),
        "density_by_kind": (density_by_kind.plot(kinds, "LEAP"), kinds),
    }


def test_the_same_figures_are_saved_to_the_same_bytes(tmp_path):
    use_style()
    for run in ("one", "two"):
        for name, (figure, data) in drawings().items():
            save(figure, data, tmp_path / f"{name}-{run}")
    for name in ("accuracy", "density", "density_by_kind"):
        for suffix in ("png", "pdf", "csv"):
            one, two = (tmp_path / f"{name}-{run}.{suffix}" for run in ("one", "two"))
            assert one.read_bytes() == two.read_bytes()


def test_variants_are_left_to_their_table():
    methods = METHODS | {"leap": METHODS["leap"] | {"variant_of": "admm"}}
    legend = [text.get_text() for text in accuracy.plot(averages(), methods).legends[0].get_texts()]
    assert legend == ["MAGNITUDE", "ADMM"]


def fits(figure):
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= box.y0


@pytest.mark.parametrize("models", ["a", "abc"])
def test_the_legend_of_many_methods_fits_the_figure(models):
    use_style()
    names = [f"Method number {number}" for number in range(len(OTHERS))]
    rows = [
        {"model": model, "method": name, "sparsity_target": sparsity, "value": 60.0, "error": 1.0}
        | {"sd": 0.5, "seeds": 2}
        for model in models
        for name, sparsity in [("dense", 0.0), *((name, 0.5) for name in names)]
    ]
    fits(accuracy.plot(pd.DataFrame(rows), {name: {"module": name, "label": name} for name in ["dense", *names]}))


def test_one_model_is_not_shown_twice_and_takes_a_column():
    data = averages(["a"])
    assert set(data["model"]) == {"a"}
    assert accuracy.plot(data, METHODS).get_figwidth() == SINGLE


@pytest.mark.parametrize("models", [["a"], ["a", "b"]])
def test_the_legend_of_few_panels_fits_the_figure(models):
    use_style()
    data = density.densities(BLOCKS[BLOCKS["model"].isin(models)], "leap", "block")
    fits(density.plot(data, "LEAP (a rather long name)"))
