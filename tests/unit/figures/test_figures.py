"""Figures from made-up data: what is plotted is what was counted, and each says that its masks are hard."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from leap_repro.errors import UserError
from leap_repro.figures import accuracy, density
from leap_repro.figures.style import SERIES, save, use_style

BLOCKS = pd.DataFrame(
    {"model": model, "method": method, "sparsity_target": sparsity, "seed": seed, "block": block}
    | {"kept": 40 + 10 * block + 2 * seed, "numel": 100}
    for model in ("a", "b")
    for method in ("leap", "wanda")
    for sparsity in (0.5, 0.6)
    for seed in (0, 1)
    for block in range(3)
)


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


def test_density_is_the_mean_over_seeds_of_leaps_blocks():
    data = density.block_densities(BLOCKS, "leap")
    assert list(data.loc[(data["model"] == "a") & (data["sparsity_target"] == 0.5), "mean"]) == [41.0, 51.0, 61.0]
    assert set(data["budget"]) == {50.0, 40.0}


def test_density_figure_has_a_panel_per_model_and_a_budget_line_per_sparsity():
    figure = density.plot(density.block_densities(BLOCKS, "leap"), "LEAP")
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    for axis in figure.axes:
        levels = [line.get_ydata()[0] for line in axis.lines if len(set(line.get_ydata())) == 1 and line.get_ydata()[0]]
        assert {50.0, 40.0} <= set(levels)
    assert "hard mask" in words(figure)
    assert "global budget" in words(figure)


def test_density_without_leap_is_refused():
    with pytest.raises(UserError, match="leap"):
        density.block_densities(BLOCKS[BLOCKS["method"] == "wanda"], "leap")


METHODS = {name: {"module": name, "label": name.upper()} for name in ("dense", "admm", "leap")}


def averages():
    rows = [
        {"model": model, "method": method, "sparsity_target": sparsity, "value": value + offset}
        for model, offset in (("a", 0), ("b", 10))
        for method, sparsity, value in (("dense", 0.0, 70), ("admm", 0.5, 60), ("admm", 0.6, 50), ("leap", 0.6, 55))
    ]
    extra = {"seed": 0, "task": "average", "metric": "acc", "sparsity_actual": 0.0}
    return accuracy.averages(pd.DataFrame([row | extra for row in rows]))


def test_accuracy_adds_the_mean_of_the_models():
    data = averages()
    mean = data[data["model"] == accuracy.MEAN].set_index(["method", "sparsity_target"])["value"]
    assert mean[("admm", 0.6)] == 55.0
    assert mean[("dense", 0.0)] == 75.0


def test_every_curve_starts_at_the_dense_model():
    figure = accuracy.plot(averages(), METHODS)
    for line in figure.axes[0].lines:
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (0.0, 70.0)
    assert "hardened masks" in words(figure)
    assert "ADMM" in words(figure)


def test_series_differ_without_colour():
    assert len({(series["marker"], series["linestyle"]) for series in SERIES}) == len(SERIES)


def test_the_same_figure_is_saved_to_the_same_bytes(tmp_path):
    use_style()
    data = averages()
    for name in ("one", "two"):
        save(accuracy.plot(data, METHODS), data, tmp_path / name)
    for suffix in ("png", "pdf", "csv"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_variants_are_left_to_their_table():
    methods = METHODS | {"leap": METHODS["leap"] | {"variant_of": "admm"}}
    legend = [text.get_text() for text in accuracy.plot(averages(), methods).legends[0].get_texts()]
    assert legend == ["ADMM"]


def test_the_legend_of_many_methods_fits_the_figure():
    names = [f"Method number {number}" for number in range(len(SERIES))]
    cells = [("dense", 0.0), *((name, 0.5) for name in names)]
    rows = [
        {"model": model, "method": name, "sparsity_target": sparsity, "value": 60.0}
        for model in "abc"
        for name, sparsity in cells
    ]
    figure = accuracy.plot(pd.DataFrame(rows), {name: {"module": name, "label": name} for name in ["dense", *names]})
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1


def test_one_model_is_not_shown_twice():
    data = averages()
    one = data[data["model"] == "a"].assign(seed=0, task="average", metric="acc", sparsity_actual=0.0)
    assert set(accuracy.averages(one)["model"]) == {"a"}


@pytest.mark.parametrize("models", [["a"], ["a", "b"]])
def test_the_legend_of_few_panels_fits_the_figure(models):
    use_style()
    data = density.block_densities(BLOCKS[BLOCKS["model"].isin(models)], "leap")
    figure = density.plot(data, "LEAP (with a rather long name)")
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1
