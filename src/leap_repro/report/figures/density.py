"""The paper's Figure 1: what share of each decoder block's weights LEAP keeps, against the global budget.

In a grid without LEAP it shows the method that the workflow names.
Counted on the hardened masks (exact top-k), never on the relaxed gates. `python -m leap_repro.report.figures.density`.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.report.collect import DENSITY, read_models
from leap_repro.report.figures.style import (
    BUDGET_LINE,
    BUDGETS,
    entries_of,
    figure_parser,
    legend_below,
    only_method,
    panels,
    save,
    use_style,
)

CELL = ["model", "sparsity_target", "budget"]


def densities(density: pd.DataFrame, method: str, by: str) -> pd.DataFrame:
    """Density of a method's masks in percent per model, budget and `by` ("block" or "kind"), the mean over seeds with
    its standard deviation; UserError if the method is not among the results."""
    learned = density[density["method"] == method]
    if learned.empty:
        raise UserError(f"the density figure shows the method {method!r}, which is not in this grid")
    learned = learned.assign(budget=100 * (1 - learned["sparsity_target"]))
    counts = learned.groupby([*CELL, by, "seed"], sort=False)[["kept", "numel"]].sum()
    shares = (100 * counts["kept"] / counts["numel"]).rename("density")
    return shares.groupby([*CELL, by], sort=False).agg(["mean", "std", "size"]).reset_index()


def plot(data: pd.DataFrame, method: str) -> Figure:
    """One panel per model; one curve per budget; dashed grey lines at the budgets."""
    models = list(dict.fromkeys(data["model"]))
    labels = "Decoder block", "Density of the hard mask (%)"
    figure, axes = panels(len(models), *labels, sharey=True, height=2.6)
    for axis, model in zip(axes, models, strict=True):
        panel = data[data["model"] == model]
        draw_budgets(axis, panel, "block", method)
        axis.set_title(model)
        axis.set_xticks(sorted(panel["block"].unique())[:: max(1, panel["block"].nunique() // 6)])
    legend_below(figure, entries_of(*axes))
    return figure


def draw_budgets(axis: Axes, panel: pd.DataFrame, by: str, method: str, joined: bool = True) -> None:
    """One curve per budget over the column `by`, or points that are not joined; the budgets as dashed lines."""
    for look, (sparsity, curve) in zip(BUDGETS, panel.groupby("sparsity_target"), strict=False):
        axis.axhline(curve["budget"].iloc[0], label="global budget", **BUDGET_LINE)
        drawn: dict[str, Any] = look if joined else look | {"linestyle": "none"}
        label = f"{method}, {100 * sparsity:g} % sparse"
        axis.errorbar(curve[by], curve["mean"], yerr=curve["std"], label=label, capsize=2, **drawn)


def main(arguments: argparse.Namespace) -> None:
    """Read the densities, plot, save."""
    use_style()
    method, label = only_method("density", arguments.methods)
    data = densities(read_models(arguments.root, arguments.models, DENSITY), method, "block")
    save(plot(data, label), data, arguments.output)


if __name__ == "__main__":
    run_stage(main, figure_parser("density", __doc__))
