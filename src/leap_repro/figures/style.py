"""How every figure looks: colour-blind safe, legible in print and in grey, and saved three ways."""

from __future__ import annotations

import argparse
import io
import logging
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from leap_repro.cli import json_argument
from leap_repro.store.atomic import replacing

# Okabe and Ito's palette, each colour with its own marker and dash, so that no reading rests on colour alone.
SERIES = (
    {"color": "#D55E00", "marker": "o", "linestyle": "-"},
    {"color": "#0072B2", "marker": "s", "linestyle": "--"},
    {"color": "#009E73", "marker": "^", "linestyle": "-."},
    {"color": "#CC79A7", "marker": "D", "linestyle": ":"},
    {"color": "#000000", "marker": "v", "linestyle": "-"},
    {"color": "#E69F00", "marker": "P", "linestyle": "--"},
    {"color": "#56B4E9", "marker": "X", "linestyle": "-."},
    {"color": "#7F7F7F", "marker": "*", "linestyle": "-"},
    {"color": "#D55E00", "marker": "<", "linestyle": "--"},
    {"color": "#0072B2", "marker": ">", "linestyle": "-."},
    {"color": "#009E73", "marker": "h", "linestyle": "-"},
    {"color": "#CC79A7", "marker": "p", "linestyle": "--"},
)
BUDGET_LINE = {"color": "#808080", "linestyle": "--", "linewidth": 1.0, "zorder": 0}

METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None, "ModDate": None, "Producer": None}}
"""What each format would say of its making, left out so that files repeat."""


def use_style() -> None:
    """Set matplotlib's defaults: embedded fonts, no frame on the top and right, fixed ids so that files repeat."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every glyph
    plt.rcParams.update(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "lines.markersize": 4.5,
            "lines.linewidth": 1.4,
            "legend.frameon": False,
            "pdf.fonttype": 42,
            "svg.hashsalt": "leap",
            "savefig.dpi": 200,
        }
    )


def save(figure: Figure, data: pd.DataFrame, stem: Path) -> None:
    """Write <stem>.png, <stem>.pdf and the plotted numbers as <stem>.csv, each whole or not at all."""
    for suffix, metadata in METADATA.items():
        drawn = io.BytesIO()  # drawn first, then written: matplotlib hides the system's error if a disk is full
        figure.savefig(drawn, format=suffix, metadata=metadata)
        with replacing(Path(f"{stem}.{suffix}")) as path:
            path.write_bytes(drawn.getvalue())
    with replacing(Path(f"{stem}.csv")) as path:
        data.to_csv(path, index=False)
    plt.close(figure)


def figure_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments that every figure's command takes."""
    parser = argparse.ArgumentParser(prog=f"python -m leap_repro.figures.{module}", description=description)
    parser.add_argument("--root", required=True, type=Path, help="results folder of a scale, or its extended grid's")
    parser.add_argument("--models", required=True, nargs="+")
    parser.add_argument("--methods", required=True, type=json_argument, help='{method: {"label": how figures call it}}')
    parser.add_argument("--output", required=True, type=Path, help="path without suffix")
    return parser
