"""LEAP minus ADMM at every sparsity, per model and in the mean, beside what is published.

`python -m leap_repro.report.figures.forest`. Differences in points of the six-task average of hardened masks, paired
over questions, with 95 % intervals: thick for these models, thin over models.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leap_repro.cli import json_argument, run_stage
from leap_repro.errors import UserError
from leap_repro.report.collect import OUTCOMES, read_models
from leap_repro.report.differences import ALL, COLUMNS, MEAN, method_rows
from leap_repro.report.figures.style import (
    LEAP_LOOK,
    entries_of,
    figure_parser,
    legend_below,
    panels,
    save,
    use_style,
)
from leap_repro.report.layout import LEAP, REFERENCE, Methods, called, format_interval, format_sparsity
from leap_repro.report.published import signed

ROW = 0.2
"""Inches of a model's row."""
OVER_MODELS = {"color": LEAP_LOOK["color"], "linewidth": 0.7, "zorder": 1}
"""The interval over models, which only the mean has."""
PUBLISHED = {"marker": "s", "markerfacecolor": "none", "color": "#1A1A1A", "linestyle": "none", "zorder": 4}


def compared(methods: Methods) -> tuple[str, str]:
    """What the grid calls LEAP and ADMM; UserError in a grid without one of them."""
    ours, reference = called(LEAP, methods), called(REFERENCE, methods)
    if ours is None or reference is None:
        raise UserError(f"the forest figure compares {LEAP} with {REFERENCE}; this grid has {[*methods]}")
    return ours, reference


def differences(outcomes: pd.DataFrame, methods: Methods, stands_for: dict[str, str | None]) -> pd.DataFrame:
    """LEAP's rows of the table of differences: one per sparsity and model, their means, and the mean of all cells.

    But every sparsity is here, of the models with most seeds at it; so there is no Holm's p, which is of the table's.
    """
    ours, _ = compared(methods)
    both = outcomes[outcomes["sparsity_target"] > 0]
    parts = [part for _, part in both.groupby("sparsity_target")]
    rows = [row for part in parts for row in method_rows(part, ours, methods, stands_for)]
    rows += [row for row in method_rows(both, ours, methods, stands_for) if row[COLUMNS.index("model")] == ALL]
    if not rows:
        raise UserError(f"no model of this grid has results of {LEAP} and of {REFERENCE} at the same sparsity")
    return pd.DataFrame(rows, columns=COLUMNS).drop(columns="p_holm")


def plot(data: pd.DataFrame, methods: Methods) -> Figure:
    """One panel per sparsity, two a row; a row per model, the number beside its interval."""
    cells = data[data["model"] != ALL]
    names = sorted(dict.fromkeys(cells["model"]), key=MEAN.__eq__)  # the mean last, models as they come
    ours, reference = (methods[name]["label"] for name in compared(methods))
    sparsities = by_seeds(cells)
    height = ROW * len(names) + (0.75 if len(sparsities) < 3 else 0.55)
    xlabel = f"{ours} − {reference} (points)"
    figure, axes = panels(len(sparsities), xlabel, "", height=height, columns=2, sharex=True, sharey=True)
    for axis, sparsity in zip(axes, sparsities, strict=True):
        panel = cells[cells["sparsity_target"] == sparsity]
        draw(axis, panel, names, f"{ours} − {reference}, hardened masks")
        seeds = panel["seeds"].max()
        axis.set_title(f"{format_sparsity(sparsity)} sparse, {seeds} {'seeds' if seeds > 1 else 'seed'}")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    legend_below(figure, entries_of(*axes), note(data))
    return figure


def by_seeds(cells: pd.DataFrame) -> list[float]:
    """The sparsities, those with most seeds first."""
    seeds = cells.groupby("sparsity_target")["seeds"].max()
    return list(seeds.sort_index().sort_values(ascending=False, kind="stable").index)


def draw(axis: Axes, panel: pd.DataFrame, names: list[str], label: str) -> None:
    """One sparsity: points with intervals and numbers, the published as hollow squares, a line at no difference."""
    axis.axvline(0, color="#808080", linewidth=1, zorder=0)
    axis.grid(axis="y", visible=False)
    for is_mean, part in panel.groupby(panel["model"] == MEAN):
        rows = part["model"].map(names.index)
        axis.hlines(rows, part["low_over_models"], part["high_over_models"], **OVER_MODELS)
        reach = [part["difference"] - part["low"], part["high"] - part["difference"]]
        look: dict[str, Any] = {"color": LEAP_LOOK["color"], "linestyle": "none", "elinewidth": 1.6, "capsize": 2}
        named: dict[str, Any] = {"marker": "D"} if is_mean else {"marker": "o", "label": label}
        axis.errorbar(part["difference"], rows, xerr=reach, **look, **named)
        theirs = None if is_mean or part["published"].isna().all() else "published, for the model that it stands for"
        axis.plot(part["published"], rows, label=theirs, **PUBLISHED)
        for row, values in zip(rows, part.itertuples(), strict=True):
            place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
            words = {"fontsize": 7, "fontweight": "bold" if is_mean else "normal"}
            axis.annotate(number(values), (1, row), (4, 0), **place, **words)


def number(values: Any) -> str:
    """A difference and its interval in words: "+2.59 [+1.20, +3.98]"."""
    return f"{signed(values.difference)} [{signed(values.low)}, {signed(values.high)}]"


def note(data: pd.DataFrame) -> str:
    """What the intervals hold, and the mean of all cells that have most seeds."""
    several = data["seeds"].max() > 1
    words = [f"Bars: 95 % intervals over questions{', and seeds where there are several' if several else ''}."]
    words += ["Thin line: over models."] if data["low_over_models"].notna().any() else []
    cells = data[~data["model"].isin([ALL, MEAN])]
    for values in data[data["model"] == ALL].itertuples():
        published = "" if math.isnan(values.published) else f"; published: {signed(values.published)}"
        counted = f"{(cells['seeds'] == values.seeds).sum()} cells{f' with {values.seeds} seeds' if several else ''}"
        over_models = format_interval(values.low_over_models, values.high_over_models)
        further = f", over models {over_models}" if over_models else ""
        words.append(f"Mean of the {counted}: {number(values)}{further}{published}")
    return " ".join(words)


def main(arguments: argparse.Namespace) -> None:
    """Read the outcomes, plot, save."""
    use_style()
    outcomes = read_models(arguments.root, arguments.models, OUTCOMES)
    data = differences(outcomes, arguments.methods, arguments.stands_for)
    save(plot(data, arguments.methods), data, arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    found = figure_parser("forest", __doc__)
    found.add_argument("--stands-for", type=json_argument, default={}, help="{model: its name in published tables}")
    return found


if __name__ == "__main__":
    run_stage(main, parser())
