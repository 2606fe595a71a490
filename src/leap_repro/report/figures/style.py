"""How every figure looks: as wide as a column or a page, colour-blind safe, legible in grey, and saved three ways.

LEAP is orange and thick wherever methods are compared, ADMM black, the others muted.
"""

from __future__ import annotations

import argparse
import io
import logging
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from leap_repro.cli import json_argument
from leap_repro.errors import UserError
from leap_repro.report.layout import LEAP, REFERENCE, Methods, called, is_dense
from leap_repro.store.atomic import replacing
from leap_repro.store.sums import SUFFIX, write_sums

SINGLE, DOUBLE = 3.3, 6.8
"""Widths of a printed column and of a page of two, in inches."""
LEAP_LOOK = {"color": "#D55E00", "marker": "o", "linestyle": "-", "linewidth": 2.2, "zorder": 4}
ADMM_LOOK = {"color": "#1A1A1A", "marker": "s", "linestyle": "--", "linewidth": 1.5, "zorder": 3}
# Tol's muted palette without what is near to orange; each with its own marker and dash, no reading rests on colour.
OTHERS = (
    {"color": "#332288", "marker": "^", "linestyle": "-."},
    {"color": "#44AA99", "marker": "D", "linestyle": ":"},
    {"color": "#AA4499", "marker": "v", "linestyle": "-"},
    {"color": "#B48ED6", "marker": "P", "linestyle": "--"},
    {"color": "#88CCEE", "marker": "X", "linestyle": "-."},
    {"color": "#117733", "marker": "<", "linestyle": "-"},
    {"color": "#882255", "marker": ">", "linestyle": ":"},
    {"color": "#7F7F7F", "marker": "*", "linestyle": "-"},
    {"color": "#4477AA", "marker": "h", "linestyle": "--"},
    {"color": "#003B46", "marker": "d", "linestyle": "-"},
    {"color": "#999933", "marker": "p", "linestyle": "-."},
    {"color": "#6B4C3B", "marker": "H", "linestyle": ":"},
)
# LEAP's orange from dark to light, one for each budget.
BUDGETS = (
    {"color": "#4A1E00", "marker": "v", "linestyle": ":"},
    {"color": "#9A4400", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    {"color": "#F0934A", "marker": "^", "linestyle": "-."},
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
BUDGET_LINE = {"color": "#808080", "linestyle": "--", "linewidth": 1.0, "zorder": 0}
LEGEND_ROW, LETTER = 0.165, 0.06
"""Inches of a legend's row and about a letter's in it."""

METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None, "ModDate": None, "Producer": None}}
"""What each format would say of its making, left out so that files repeat."""


def use_style() -> None:
    """Set matplotlib's defaults: embedded fonts, no frame on the top and right, fixed ids so that files repeat."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every glyph
    plt.rcParams.update(
        {
            "font.size": 8,
            "axes.titlesize": 8,
            "legend.fontsize": 7.5,
            "legend.title_fontsize": 7.5,
            "xtick.labelsize": 7.5,
            "ytick.labelsize": 7.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "lines.markersize": 4,
            "lines.linewidth": 1.1,
            "legend.frameon": False,
            "pdf.fonttype": 42,
            "svg.hashsalt": "leap",
            "savefig.dpi": 200,
        }
    )


def looks(methods: Methods) -> dict[str, dict[str, Any]]:
    """{method: how its curve is drawn} of all that prune: LEAP and ADMM always alike, others in the grid's order."""
    fixed = {called(module, methods): look for module, look in ((LEAP, LEAP_LOOK), (REFERENCE, ADMM_LOOK))}
    pruning = [name for name in methods if not is_dense(name, methods)]
    return dict(zip([n for n in pruning if n not in fixed], cycle(OTHERS), strict=False)) | {
        name: look for name, look in fixed.items() if name
    }


def only_method(figure: str, methods: Methods) -> tuple[str, str]:
    """(name, label) of the one method that a figure shows; UserError if it is given another number of them."""
    if len(methods) != 1:
        raise UserError(f"the {figure} figure shows one method with learned masks, not {[*methods]}")
    ((name, facts),) = methods.items()
    return name, facts["label"]


def panels(
    count: int, xlabel: str, ylabel: str, height: float, columns: int = 3, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of `height` inches, `columns` a row; as wide as a column for one, else as a page.

    The lowest panel of a column bears `xlabel`, the first of a row `ylabel`.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (SINGLE if count == 1 else DOUBLE, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **shared)
    for place, axis in enumerate(axes.flat):
        axis.set_visible(place < count)
        if place + columns >= count:
            axis.set_xlabel(xlabel)
            axis.tick_params(labelbottom=True)
        if place % columns == 0:
            axis.set_ylabel(ylabel)
    return figure, [*axes.flat[:count]]


def logarithmic(axis: Axis) -> bool:
    """A logarithmic axis with plain numbers at 1, 2 and 5 times the powers of ten, where the data span that much;
    whether they do."""
    least, most = axis.get_data_interval()
    if most < 5 * least:
        return False
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # pyright: ignore[reportAttributeAccessIssue]  # not in its stubs
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
    return True


def legend_below(figure: Figure, entries: dict[str, Any], title: str = "") -> None:
    """One legend {label: handle} for all panels, below them; the figure grows by its rows."""
    width = figure.get_figwidth()
    columns = max(1, min(len(entries), int(width / (0.6 + LETTER * max(map(len, entries))))))
    title = fill(title, int(width / LETTER))
    rows = -(-len(entries) // columns)
    columns = -(-len(entries) // rows)  # as even as they can be: a legend is read column by column
    rows += title.count("\n") + 1 if title else 0
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * (rows + 0.5))
    place = {"loc": "outside lower center", "ncols": columns, "columnspacing": 1.4, "handlelength": 2.8}
    figure.legend(entries.values(), entries.keys(), title=title, **place)


def entries_of(*axes: Axes) -> dict[str, Any]:
    """{label: handle} of all that is labelled in some panels, each label once."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return found


def save(figure: Figure, data: pd.DataFrame, stem: Path) -> None:
    """Write <stem>.png, <stem>.pdf and the plotted numbers as <stem>.csv, each whole or not at all, and their digests
    as <stem>.sha256."""
    for suffix, metadata in METADATA.items():
        drawn = io.BytesIO()  # drawn first, then written: matplotlib hides the system's error if a disk is full
        figure.savefig(drawn, format=suffix, metadata=metadata)
        with replacing(Path(f"{stem}.{suffix}")) as path:
            path.write_bytes(drawn.getvalue())
    with replacing(Path(f"{stem}.csv")) as path:
        data.to_csv(path, index=False)
    write_sums(Path(f"{stem}{SUFFIX}"), [Path(f"{stem}.{suffix}") for suffix in (*METADATA, "csv")])
    plt.close(figure)


def figure_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments that every figure's command takes."""
    parser = argparse.ArgumentParser(prog=f"python -m leap_repro.report.figures.{module}", description=description)
    parser.add_argument("--root", required=True, type=Path, help="results folder of a scale, or its extended grid's")
    parser.add_argument("--models", required=True, nargs="+")
    parser.add_argument("--methods", required=True, type=json_argument, help='{method: {"label": how figures call it}}')
    parser.add_argument("--output", required=True, type=Path, help="path without suffix")
    return parser
