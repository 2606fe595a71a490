"""Average zero-shot accuracy against sparsity, one curve per method: `python -m leap_repro.figures.accuracy`.

Every point is a hardened mask, never a relaxed one.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from leap_repro.aggregate.collect import RESULTS, read_models
from leap_repro.aggregate.layout import is_dense
from leap_repro.aggregate.statistics import over_seeds
from leap_repro.cli import run_stage
from leap_repro.figures.style import SERIES, figure_parser, save, use_style

MEAN = "mean of the models"


def averages(results: pd.DataFrame) -> pd.DataFrame:
    """The six-task average per model, method and sparsity (mean over seeds), and the models' mean as one more model,
    if there are several."""
    means = over_seeds(results[results["task"] == "average"])
    columns = ["model", "method", "sparsity_target", "value"]
    if means["model"].nunique() == 1:
        return means[columns].reset_index(drop=True)
    mean = means.groupby(["method", "sparsity_target"], sort=False)["value"].mean().reset_index().assign(model=MEAN)
    return pd.concat([means, mean], ignore_index=True)[columns]


def plot(data: pd.DataFrame, methods: dict[str, dict]) -> Figure:
    """One panel per model and one for the mean of several; every curve starts at the dense model.

    Variants are left to their table, so that the curves stay few enough to tell apart.
    """
    models = list(dict.fromkeys(data["model"]))
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    size = (2.5 * max(columns, 1.4), 2.25 * rows + (0.4 if columns > 1 else 0.8))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    unpruned = {name for name in methods if is_dense(name, methods)}
    names = [n for n in dict.fromkeys(data["method"]) if n not in unpruned and not methods[n].get("variant_of")]
    for axis, model in zip(axes.flat, models, strict=False):
        panel = data[data["model"] == model]
        dense = panel[panel["method"].isin(unpruned)]
        for series, method in zip(SERIES * 3, names, strict=False):
            curve = pd.concat([dense, panel[panel["method"] == method]]).sort_values("sparsity_target")
            axis.plot(100 * curve["sparsity_target"], curve["value"], label=methods[method]["label"], **series)
        axis.set_title(model, fontsize=8.5, fontweight="bold" if model == MEAN else None)
        axis.set_xlabel("Sparsity (%)")
    for axis in axes.flat[len(models) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("Average accuracy (%)\nhardened masks")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns + 1, len(handles)))
    figure.set_layout_engine("constrained")
    return figure


def main(arguments: argparse.Namespace) -> None:
    """Read the results, plot, save."""
    use_style()
    data = averages(read_models(arguments.root, arguments.models, RESULTS))
    save(plot(data, arguments.methods), data, arguments.output)


if __name__ == "__main__":
    run_stage(main, figure_parser("accuracy", __doc__))
