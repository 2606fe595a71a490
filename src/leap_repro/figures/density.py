"""The paper's Figure 1: what share of each decoder block's weights LEAP keeps, against the global budget.

In a grid without LEAP it shows the method that the workflow names.
Counted on the hardened masks (exact top-k), never on the relaxed gates. `python -m leap_repro.figures.density`.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from leap_repro.aggregate.collect import DENSITY, read_models
from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.figures.style import BUDGET_LINE, SERIES, figure_parser, save, use_style


def block_densities(density: pd.DataFrame, method: str) -> pd.DataFrame:
    """Density of a method's masks in percent per model, budget and block, the mean over seeds with its standard
    deviation; UserError if the method is not among the results."""
    learned = density[density["method"] == method]
    if learned.empty:
        raise UserError(f"the density figure shows the method {method!r}, which is not in this grid")
    learned = learned.assign(
        density=100 * learned["kept"] / learned["numel"], budget=100 * (1 - learned["sparsity_target"])
    )
    keys = ["model", "sparsity_target", "budget", "block"]
    return learned.groupby(keys, sort=False)["density"].agg(["mean", "std", "size"]).reset_index()


def plot(data: pd.DataFrame, method: str) -> Figure:
    """One panel per model; one curve per budget; dashed grey lines at the budgets."""
    models = list(dict.fromkeys(data["model"]))
    size = (2.05 * len(models) + 0.5, 2.6) if len(models) > 2 else (2.4 * len(models) + 1.4, 3.0)
    figure, axes = plt.subplots(1, len(models), figsize=size, sharey=True, squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        panel = data[data["model"] == model]
        for series, (sparsity, curve) in zip(SERIES, panel.groupby("sparsity_target"), strict=False):
            label = f"{method}, {100 * sparsity:g} % sparse"
            axis.errorbar(curve["block"], curve["mean"], yerr=curve["std"], label=label, capsize=2, **series)
            axis.axhline(curve["budget"].iloc[0], **BUDGET_LINE)
        axis.set_title(model, fontsize=8.5)
        axis.set_xlabel("Decoder block")
        axis.set_xticks(sorted(panel["block"].unique())[:: max(1, panel["block"].nunique() // 6)])
    axes[0][0].set_ylabel("Density of the hard mask (%)")
    axes[0][0].plot([], [], label="global budget", **BUDGET_LINE)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles) if len(models) > 2 else 1)
    figure.set_layout_engine("constrained")
    return figure


def main(arguments: argparse.Namespace) -> None:
    """Read the densities, plot, save."""
    use_style()
    if len(arguments.methods) != 1:
        raise UserError(f"the density figure shows one method whose masks differ by block, not {[*arguments.methods]}")
    ((method, facts),) = arguments.methods.items()
    data = block_densities(read_models(arguments.root, arguments.models, DENSITY), method)
    save(plot(data, facts["label"]), data, arguments.output)


if __name__ == "__main__":
    run_stage(main, figure_parser("density", __doc__))
