"""What hardening a mask costs, and what its relaxed loss foretells: `python -m leap_repro.report.figures.rounding`.

Left, held-out loss of the relaxed against the hardened mask (exact top-k) at every probe of every training; right, the
relaxed mask's last loss against the accuracy of the hardened mask, both minus their mean over the runs of the same
model and sparsity. The coefficients are those of the table "correlations".
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leap_repro.cli import run_stage
from leap_repro.report.collect import RESULTS, TRAINING, read_models
from leap_repro.report.correlations import (
    GROUP,
    RUN,
    STEPS,
    WITHIN,
    correlations_table,
    last_probes,
    of_several,
    probes_of,
    worded,
)
from leap_repro.report.figures.style import (
    BUDGET_LINE,
    DOUBLE,
    LEAP_LOOK,
    MARKERS,
    figure_parser,
    legend_below,
    logarithmic,
    save,
    use_style,
)
from leap_repro.report.layout import Methods
from leap_repro.report.render import Table

VARIANT = "#7F7F7F"


def points(training: pd.DataFrame, results: pd.DataFrame, methods: Methods) -> pd.DataFrame:
    """A row per probe: losses of its relaxed and hardened mask in nats per token, `progress` (its step's share of the
    run's last), and at a run's last probe `accuracy` in percent."""
    probes = probes_of(training, methods)
    last = probes.groupby(RUN)["step"].transform("max")
    rows = probes[[*RUN, "step", "held_out_relaxed", "held_out_topk"]].assign(progress=probes["step"] / last)
    accuracy = last_probes(probes, results)[[*RUN, "step", "accuracy"]]
    return rows.merge(accuracy, on=[*RUN, "step"], how="left")


def plot(data: pd.DataFrame, table: Table, methods: Methods) -> Figure:
    """Both panels; `table` are the correlations of the same runs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(DOUBLE, 3.0), layout="constrained", width_ratios=[1.12, 1])
    markers: dict[str, str] = dict(zip(dict.fromkeys(data["model"]), MARKERS * 3, strict=False))
    draw_probes(left, data, markers)
    ends = deviations(data)
    draw_ends(right, ends, markers, methods)
    left.set_title(_coefficient(table, STEPS, "hardened loss", "over the steps of a run"))
    right.set_title(_coefficient(table, WITHIN, "accuracy", "between runs of one model and sparsity"))
    figure.set_layout_engine("constrained", wspace=0.06)
    entries = {model: _key(marker) for model, marker in markers.items()}
    entries["no gap (left)"] = Line2D([], [], **BUDGET_LINE)
    if any(methods[name].get("variant_of") for name in ends["method"]):
        entries |= {"LEAP (right)": _key("o", LEAP_LOOK["color"]), "its variants (right)": _key("o", VARIANT, "none")}
    legend_below(figure, entries)
    return figure


def deviations(data: pd.DataFrame) -> pd.DataFrame:
    """The runs' last rows, relaxed loss and accuracy minus their mean over the runs of the same model and sparsity; of
    those of which there are several."""
    ends = of_several(data.dropna(subset=["accuracy"]))
    columns = ["held_out_relaxed", "accuracy"]
    return ends.assign(**{name: ends[name] - ends.groupby(GROUP)[name].transform("mean") for name in columns})


def draw_probes(axis: Axes, data: pd.DataFrame, markers: dict[str, str]) -> None:
    """Relaxed against hardened loss, coloured by how far the training was; the line where they are equal."""
    for model, marker in markers.items():
        rows = data[data["model"] == model]
        losses = rows["held_out_relaxed"], rows["held_out_topk"]
        look = {"cmap": "cividis", "vmin": 0, "vmax": 100, "marker": marker, "s": 11, "alpha": 0.8, "linewidths": 0}
        drawn = axis.scatter(*losses, c=100 * rows["progress"], **look)
    ends = [data[["held_out_relaxed", "held_out_topk"]].to_numpy().min(), data["held_out_topk"].max()]
    equal = np.geomspace(*ends)  # straight only where both axes are of one kind
    axis.plot(equal, equal, **BUDGET_LINE)
    scales = [", log scale" if logarithmic(side) else "" for side in (axis.xaxis, axis.yaxis)]
    axis.set_xlabel(f"Held-out loss, relaxed mask\n(nats per token{scales[0]})")
    axis.set_ylabel(f"Held-out loss, hardened mask\n(top-k, nats per token{scales[1]})")
    axis.figure.colorbar(drawn, ax=axis, label="Progress of the training (%)", pad=0.02)


def draw_ends(axis: Axes, ends: pd.DataFrame, markers: dict[str, str], methods: Methods) -> None:
    """Last relaxed loss against accuracy, as deviations: LEAP's runs filled, its variants' hollow."""
    for (model, method), rows in ends.groupby(["model", "method"], sort=False):
        varied = methods[method].get("variant_of")
        colours: dict[str, Any] = {"facecolors": "none", "edgecolors": VARIANT} if varied else {"c": LEAP_LOOK["color"]}
        look: dict[str, Any] = {"marker": markers[model], "s": 16, "linewidths": 0.8, "zorder": 2 if varied else 3}
        axis.scatter(rows["held_out_relaxed"], rows["accuracy"], **look, **colours)
    axis.set(xlabel="Relaxed loss at the end, minus the mean\nof model and sparsity (nats per token)")
    axis.set_ylabel("Average accuracy, hardened mask,\nminus that mean (points)")


def _coefficient(table: Table, over: str, outcome: str, words: str) -> str:
    rows = table.numbers
    found = rows[(rows["over"] == over) & (rows["relaxed"] == "relaxed loss") & (rows["outcome"] == outcome)]
    texts = [worded(row.spearman, row.spearman_low, row.spearman_high, over) for row in found.itertuples()]
    return f"{words}:\nρ = {texts[0]}" if texts and texts[0] else ""


def _key(marker: str, colour: str = "#333333", face: str | None = None) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, color=colour, markerfacecolor=face or colour)


def main(arguments: argparse.Namespace) -> None:
    """Read the trainings and the accuracies, plot, save."""
    use_style()
    training, results = (read_models(arguments.root, arguments.models, table) for table in (TRAINING, RESULTS))
    data = points(training, results, arguments.methods)
    table = correlations_table(training, results, arguments.methods)
    save(plot(data, table, arguments.methods), data, arguments.output)


if __name__ == "__main__":
    run_stage(main, figure_parser("rounding", __doc__))
