"""The paper's Figure 1: what share of each decoder block's weights LEAP keeps, against the global budget.

In a grid without LEAP it shows the method that the workflow names.
Counted on the hardened masks (exact top-k), never on the relaxed gates. `python -m leap_repro.report.figures.density`.
"""

from __future__ import annotations

import argparse
from itertools import cycle
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
from leap_repro.report.layout import format_sparsity

CELL = ["model", "sparsity_target", "budget"]
BUDGET = "global budget"


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
        draw_budgets(axis, panel, "block", budget_looks(data, method))
        axis.set_title(model)
        axis.set_xticks(sorted(panel["block"].unique())[:: max(1, panel["block"].nunique() // 6)])
    legend_below(figure, budget_entries(axes, data, method))
    return figure


def budget_looks(data: pd.DataFrame, method: str) -> dict[float, dict[str, Any]]:
    """{sparsity: label and look of its curve}, from the least pruned on; the same in every panel."""
    sparsities = sorted(data["sparsity_target"].unique())
    named = [(sparsity, {"label": f"{method}, {format_sparsity(sparsity)} sparse"}) for sparsity in sparsities]
    return {sparsity: label | look for (sparsity, label), look in zip(named, cycle(BUDGETS), strict=False)}


def budget_entries(axes: list[Axes], data: pd.DataFrame, method: str) -> dict[str, Any]:
    """The legend's entries by sparsity, and last the budgets' line."""
    entries = entries_of(*axes)
    labels = [look["label"] for look in budget_looks(data, method).values()]
    return {label: entries[label] for label in [*labels, BUDGET]}


def draw_budgets(
    axis: Axes, panel: pd.DataFrame, by: str, looks: dict[float, dict[str, Any]], joined: bool = True
) -> None:
    """One curve per budget over the column `by`, or points that are not joined; the budgets as dashed lines."""
    for sparsity, curve in panel.groupby("sparsity_target"):
        axis.axhline(curve["budget"].iloc[0], label=BUDGET, **BUDGET_LINE)
        drawn: dict[str, Any] = looks[sparsity] if joined else looks[sparsity] | {"linestyle": "none"}
        axis.errorbar(curve[by], curve["mean"], yerr=curve["std"], capsize=2, **drawn)


def main(arguments: argparse.Namespace) -> None:
    """Read the densities, plot, save."""
    use_style()
    method, label = only_method("density", arguments.methods)
    data = densities(read_models(arguments.root, arguments.models, DENSITY), method, "block")
    save(plot(data, label), data, arguments.output)


if __name__ == "__main__":
    run_stage(main, figure_parser("density", __doc__))
