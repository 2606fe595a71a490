"""What share of each kind of matrix LEAP keeps, against the global budget.

`python -m leap_repro.report.figures.density_by_kind`. Counted on the hardened masks (exact top-k), never on the relaxed
gates, over all decoder blocks.
"""

from __future__ import annotations

import argparse

import pandas as pd
from matplotlib.figure import Figure

from leap_repro.cli import run_stage
from leap_repro.report.collect import DENSITY, read_models
from leap_repro.report.figures.density import budget_entries, budget_looks, densities, draw_budgets
from leap_repro.report.figures.style import (
    figure_parser,
    legend_below,
    only_method,
    panels,
    save,
    use_style,
)

KINDS = {f"{kind}_proj": kind for kind in ("q", "k", "v", "o", "gate", "up", "down")}
"""How transformers calls the matrices of most families, and how the figure does, in its order."""


def by_kind(density: pd.DataFrame, method: str) -> pd.DataFrame:
    """`densities` by kind of matrix, in the order of KINDS; kinds of other names follow as they come."""
    data = densities(density, method, "kind")
    order = {kind: place for place, kind in enumerate(dict.fromkeys([*KINDS, *data["kind"]]))}
    models = {model: place for place, model in enumerate(dict.fromkeys(data["model"]))}
    places = {"model": models, "kind": order}
    keys = ["model", "sparsity_target", "kind"]
    return data.sort_values(keys, key=lambda column: column.map(places.get(column.name, lambda value: value)))


def plot(data: pd.DataFrame, method: str) -> Figure:
    """One panel per model; a point per kind and budget, not joined; dashed grey lines at the budgets."""
    models = list(dict.fromkeys(data["model"]))
    labels = "Kind of matrix", "Density of the\nhard mask (%)"
    figure, axes = panels(len(models), *labels, sharey=True, height=2)
    for axis, model in zip(axes, models, strict=True):
        panel = data[data["model"] == model].assign(name=lambda rows: rows["kind"].map(lambda k: KINDS.get(k, k)))
        draw_budgets(axis, panel, "name", budget_looks(data, method), joined=False)
        axis.set_title(model)
        axis.margins(x=0.08)
        if max(map(len, panel["name"])) > 4:
            axis.tick_params(axis="x", labelrotation=45)
    legend_below(figure, budget_entries(axes, data, method))
    return figure


def main(arguments: argparse.Namespace) -> None:
    """Read the densities, plot, save."""
    use_style()
    method, label = only_method("density by kind", arguments.methods)
    data = by_kind(read_models(arguments.root, arguments.models, DENSITY), method)
    save(plot(data, label), data, arguments.output)


if __name__ == "__main__":
    run_stage(main, figure_parser("density_by_kind", __doc__))
