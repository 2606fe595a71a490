"""LEAP's lead over ADMM in perplexity against training tokens a weight.

`python examples/bridge/lead.py` draws `verdict.csv` of the bridge's run into its folder of tables, in
one figure with the published verdicts of the real models where there are any.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leap_repro.report.figures.style import (
    LEAP_LOOK,
    MARKERS,
    OTHERS,
    entries_of,
    legend_below,
    logarithmic,
    panels,
    save,
    use_style,
)
from leap_repro.report.layout import format_sparsity

sys.path.append(str(Path(__file__).resolve().parents[1] / "real"))
from verdict import TEXTS

START = {False: "the paper's schedule", True: "cold start"}
REAL = Path(__file__).resolve().parents[1] / "real/published/verdict.csv"
LEAD = "ln(PPL LEAP / PPL ADMM)"
NOTE = "Bars: 95 % intervals. Below 0 LEAP leads."
COLOURS = [LEAP_LOOK["color"], *(look["color"] for look in OTHERS)]


def points(files: list[Path]) -> pd.DataFrame:
    """The rows of verdict tables with LEAP's start and its tokens a weight, sorted by them."""
    table = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    table["start"] = table["method"].str.startswith("leap-cold-start").map(START)
    table["tokens_a_weight"] = table["tokens"] / table["weights"]
    return table.sort_values(["model", "sparsity", "start", "tokens_a_weight"], ignore_index=True)


def curves(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """{label: rows}: a curve per model, sparsity and start."""
    return {
        f"{model}, {format_sparsity(sparsity)}, {start}": rows
        for (model, sparsity, start), rows in table.groupby(["model", "sparsity", "start"])
    }


def draw(axis: Axes, found: dict[str, pd.DataFrame], labels: list[str]) -> None:
    """One text's curves with their intervals, and a line at no difference."""
    axis.axhline(0, color="#808080", linewidth=0.8)
    for label, rows in found.items():
        number = labels.index(label)
        look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        lead = rows["difference"]
        ends = [lead - rows["lower"], rows["upper"] - lead]
        axis.errorbar(rows["tokens_a_weight"], lead, yerr=ends, capsize=2, label=label, **look)


def plot(table: pd.DataFrame) -> Figure:
    """A panel per text."""
    labels = [*curves(table)]
    xlabel = "training tokens a prunable weight"
    figure, axes = panels(len(TEXTS), xlabel, LEAD, height=2.2, columns=2, sharey=True)
    for (text, title), axis in zip(TEXTS.items(), axes, strict=True):
        draw(axis, curves(table[table["text"] == text]), labels)
        logarithmic(axis.xaxis)
        axis.set_title(title)
    legend_below(figure, entries_of(*axes), NOTE)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Read, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, default=Path("results/bridge/tables"))
    parser.add_argument("--real", type=Path, default=REAL, help="verdicts of the real models")
    given = parser.parse_args(arguments)
    ours = given.tables / "verdict.csv"
    table = points([ours, given.real] if given.real.is_file() else [ours])
    use_style()
    save(plot(table), table, given.tables / "lead")


if __name__ == "__main__":
    main()
