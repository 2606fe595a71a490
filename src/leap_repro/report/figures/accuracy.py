"""Average zero-shot accuracy against sparsity, one curve per method: `python -m leap_repro.report.figures.accuracy`.

Every point is a hardened mask, never a relaxed one. Bars are ± the standard error over questions: the one error that
methods with one seed have too.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leap_repro.cli import run_stage
from leap_repro.report.collect import OUTCOMES, RESULTS, read_models
from leap_repro.report.differences import MEAN
from leap_repro.report.figures.style import (
    BUDGET_LINE,
    LEAP_LOOK,
    entries_of,
    figure_parser,
    legend_below,
    looks,
    panels,
    save,
    use_style,
)
from leap_repro.report.layout import Methods, is_dense, spread_of_mean
from leap_repro.report.statistics import QUESTION, over_seeds

CELL = ["model", "method", "sparsity_target"]
BARS = "Bars: ± standard error over questions"


def averages(results: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """The six-task average per model, method and sparsity in percent: mean over seeds, standard `error` over questions,
    `sd` over seeds (NaN for one).

    The mean of several models is one more model, for the methods that ran on every one at that sparsity.
    """
    cells = over_seeds(results[results["task"] == "average"])[[*CELL, "value", "sd", "seeds"]]
    models = cells["model"].nunique()
    if models > 1:
        by_model = cells.groupby(["method", "sparsity_target"], sort=False)
        mean = by_model.agg(value=("value", "mean"), sd=("sd", spread_of_mean), seeds=("seeds", "min"))
        mean = mean[by_model.size() == models].reset_index().assign(model=MEAN)
        cells, outcomes = pd.concat([cells, mean]), pd.concat([outcomes, outcomes.assign(model=MEAN)])
    cells = cells.join(question_errors(outcomes), on=CELL).reset_index(drop=True)
    return cells[[*CELL, "value", "error", "sd", "seeds"]]


def question_errors(outcomes: pd.DataFrame) -> pd.Series:
    """Standard error over questions of the six-task average, in points, per model, method and sparsity.

    A question that several models (or seeds) answered counts once, by their mean.
    """
    answers = outcomes.groupby([*CELL, *QUESTION], sort=False)["correct"].mean()
    tasks = answers.groupby([*CELL, "task"], sort=False).agg(["var", "size"])
    variance = (tasks["var"] / tasks["size"]).groupby(CELL, sort=False).agg(["sum", "size"])
    return (100 * np.sqrt(variance["sum"]) / variance["size"]).rename("error")


def plot(data: pd.DataFrame, methods: Methods) -> Figure:
    """One panel per model and one for the mean of several, from the least pruned sparsity on, all with one y axis.

    The dense model is a dashed line. Variants are left to their table: the curves stay few enough to tell apart.
    """
    models = list(dict.fromkeys(data["model"]))
    labels = "Sparsity (%)", "Average accuracy (%)\nhardened masks"
    figure, axes = panels(len(models), *labels, sharey=True, height=2.4 if len(models) > 1 else 2.6)
    for axis, model in zip(axes, models, strict=True):
        draw(axis, data[data["model"] == model], methods)
        axis.set_title(model, fontweight="bold" if model == MEAN else None)
    legend_below(figure, entries_of(*axes), BARS)
    return figure


def draw(axis: Axes, panel: pd.DataFrame, methods: Methods) -> None:
    """The curves of one model, with bars; at a single sparsity, the methods' points side by side."""
    shown = {n: look for n, look in looks(methods).items() if not methods[n].get("variant_of")}
    names = [name for name in dict.fromkeys(panel["method"]) if name in shown]
    sparsities = 100 * np.unique(panel.loc[panel["method"].isin(shown), "sparsity_target"])
    for place, method in enumerate(names):
        curve = panel[panel["method"] == method].sort_values("sparsity_target")
        bars = {"elinewidth": 1.4, "capsize": 2.5} if shown[method] is LEAP_LOOK else {"elinewidth": 0.7}
        beside = place - (len(names) - 1) / 2 if len(sparsities) == 1 else 0
        points = 100 * curve["sparsity_target"] + beside, curve["value"], curve["error"]
        axis.errorbar(*points, label=methods[method]["label"], **bars, **shown[method])
    for value in panel.loc[[is_dense(name, methods) for name in panel["method"]], "value"]:
        axis.axhline(value, **BUDGET_LINE)
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
        axis.annotate(f"dense {value:.1f}", (1, value), (0, 2), fontsize=7, color="#555555", **place)
    axis.set_xticks(sparsities)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.margins(x=0.08, y=0.1)


def main(arguments: argparse.Namespace) -> None:
    """Read the results, plot, save."""
    use_style()
    results, outcomes = (read_models(arguments.root, arguments.models, table) for table in (RESULTS, OUTCOMES))
    results, outcomes = (frame[frame["method"].isin(arguments.methods)] for frame in (results, outcomes))
    data = averages(results, outcomes)
    save(plot(data, arguments.methods), data, arguments.output)


if __name__ == "__main__":
    run_stage(main, figure_parser("accuracy", __doc__))
