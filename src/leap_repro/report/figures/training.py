"""How LEAP's mask settles while it is trained: `python -m leap_repro.report.figures.training`.

Of the sparsities with most seeds the highest is shown.

Above, the language loss of held-out text under the relaxed mask and under the hardened ones; below, how much of the
hardened mask is as at the probe before and how many gates are undecided. Curves: means over seeds; bands: their range.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.report.collect import TRAINING, read_models
from leap_repro.report.figures.style import (
    DOUBLE,
    LEAP_LOOK,
    OTHERS,
    SINGLE,
    entries_of,
    figure_parser,
    legend_below,
    logarithmic,
    only_method,
    save,
    use_style,
)

LOSSES = {
    "held_out_relaxed": ("relaxed mask", OTHERS[0]),
    "held_out_threshold": ("hardened where θ > 0", OTHERS[1]),
    "held_out_topk": ("hardened to the exact budget (top-k)", LEAP_LOOK),
}
"""What the upper panels show: column of the training table, its name, its look."""
SHARES = {
    "agreement": ("hardened mask unchanged since the last evaluation", OTHERS[2]),
    "undecided": ("relaxed gates between 0.1 and 0.9", OTHERS[7]),
}
CELL = ["model", "sparsity_target", "curve", "step"]
LOGARITHMIC = "logarithmic scale"
CORNER: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "top"}
CORNER |= {"fontsize": 7, "color": "#555555"}


def probes(training: pd.DataFrame, method: str) -> pd.DataFrame:
    """Mean, least and most over seeds of every curve at every probe, of the method's most pruned runs that have most
    seeds.

    Losses in nats per token, shares in percent. UserError if the method was not probed.
    """
    runs = training[training["method"] == method].dropna(subset=["held_out_topk"])
    if runs.empty:
        raise UserError(f"the training figure needs held-out evaluations of {method!r}, but this grid has none")
    seeds = runs.groupby("sparsity_target")["seed"].nunique()
    runs = runs[runs["sparsity_target"] == seeds[seeds == seeds.max()].index.max()]
    runs = runs.assign(**{column: 100 * runs[column] for column in SHARES})
    curves = runs.melt(["model", "sparsity_target", "step"], [*LOSSES, *SHARES], var_name="curve").dropna()
    return curves.groupby(CELL, sort=False)["value"].agg(["mean", "min", "max", "size"]).reset_index()


def plot(data: pd.DataFrame, method: str) -> Figure:
    """Two panels per model, one above the other; three models a row."""
    models = list(dict.fromkeys(data["model"]))
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    size = (SINGLE if columns == 1 else DOUBLE, 3.3 * rows)
    figure, axes = plt.subplots(
        2 * rows, columns, figsize=size, height_ratios=[3, 2] * rows, squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_visible(False)
    for place, model in enumerate(models):
        row, column = 2 * (place // columns), place % columns
        panel = data[data["model"] == model]
        draw(axes[row, column], panel, LOSSES)
        if logarithmic(axes[row, column].yaxis):
            axes[row, column].annotate(LOGARITHMIC, (1, 1), (-2, -2), **CORNER)
        draw(axes[row + 1, column], panel, SHARES)
        axes[row, column].set_title(model)
        axes[row, column].tick_params(labelbottom=False)
        axes[row + 1, column].set(xlabel="Step", ylim=(-3, 103))
        if column == 0:
            axes[row, 0].set_ylabel("Held-out loss\n(nats per token)")
            axes[row + 1, 0].set_ylabel("Share (%)")
    legend_below(figure, entries_of(axes[0, 0], axes[1, 0]), title(data, method))
    return figure


def draw(axis: Axes, panel: pd.DataFrame, curves: dict[str, tuple[str, dict]]) -> None:
    """The curves of one panel with their range over seeds; markers on at most eight probes."""
    axis.set_visible(True)
    for name, (label, look) in curves.items():
        curve = panel[panel["curve"] == name].sort_values("step")
        axis.plot(curve["step"], curve["mean"], label=label, markevery=max(1, len(curve) // 8), **look)
        axis.fill_between(curve["step"], curve["min"], curve["max"], color=look["color"], alpha=0.2, linewidth=0)


def title(data: pd.DataFrame, method: str) -> str:
    """Whose runs these are, and over how many seeds."""
    seeds = data["size"].max()
    bands = f"; mean of {seeds} seeds, band: their range" if seeds > 1 else ""
    return f"{method}, {100 * data['sparsity_target'].iloc[0]:g} % sparse{bands}"


def main(arguments: argparse.Namespace) -> None:
    """Read the training curves, plot, save."""
    use_style()
    method, label = only_method("training", arguments.methods)
    data = probes(read_models(arguments.root, arguments.models, TRAINING), method)
    save(plot(data, label), data, arguments.output)


if __name__ == "__main__":
    run_stage(main, figure_parser("training", __doc__))
