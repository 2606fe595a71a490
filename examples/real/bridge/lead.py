"""LEAP's lead over ADMM in perplexity against training tokens a weight.

`python examples/real/bridge/lead.py RESULTS OUTPUT`. RESULTS is the folder of the bridge's results.
The tables of its trials, perplexities and verdicts are copied to OUTPUT, and the figure is drawn from
the last one, with the points of the real models where `examples/real/results/verdict.csv` exists.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from shutil import copyfile

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

TABLES = ("trials", "perplexities", "verdict")
TEXTS = {"wikitext2": "WikiText-2", "c4": "C4"}
START = {"paper": "the paper's schedule", "cold": "cold start"}
REAL = Path(__file__).resolve().parents[1] / "results/verdict.csv"
LEAD = "ln(PPL LEAP / PPL ADMM)"
NOTE = f"{LEAD} on held-out text, with 95 % intervals; below 0 LEAP leads"


def points(files: list[Path]) -> pd.DataFrame:
    """The rows of verdict tables with LEAP's start and its tokens a weight, sorted by them."""
    table = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    cold = table["method"].str.startswith("leap-cold-start")
    table["start"] = cold.map({True: "cold", False: "paper"})
    table["tokens_a_weight"] = table["tokens"] / table["weights"]
    return table.sort_values(["model", "sparsity", "start", "tokens_a_weight"], ignore_index=True)


def curves(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """{label: rows} of one text, a curve per model, sparsity and start."""
    return {
        f"{model}, {sparsity:.0%}, {START[start]}": rows
        for (model, sparsity, start), rows in table.groupby(["model", "sparsity", "start"])
    }


def draw(axis: Axes, found: dict[str, pd.DataFrame], labels: list[str]) -> None:
    """One text's curves with their intervals, and a line at no difference."""
    axis.axhline(0, color="#808080", linewidth=0.8)
    for label, rows in found.items():
        number = labels.index(label)
        look = {"color": LEAP_LOOK["color"] if number == 0 else OTHERS[number - 1]["color"]}
        ends = [rows["difference"] - rows["lower"], rows["upper"] - rows["difference"]]
        axis.errorbar(
            rows["tokens_a_weight"],
            rows["difference"],
            yerr=ends,
            marker=MARKERS[number],
            capsize=2,
            label=label,
            **look,
        )


def plot(table: pd.DataFrame) -> Figure:
    """A panel per text."""
    labels = [*curves(table)]
    names = [text for text in TEXTS if text in set(table["text"])]
    figure, axes = panels(len(names), "training tokens a prunable weight", LEAD, height=2.2, columns=2, sharey=True)
    for axis, text in zip(axes, names, strict=True):
        draw(axis, curves(table[table["text"] == text]), labels)
        logarithmic(axis.xaxis)
        axis.set_title(TEXTS[text])
    legend_below(figure, entries_of(*axes), NOTE)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Copy the tables, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder with `tables`")
    parser.add_argument("output", type=Path, help="folder of tables and figure")
    parser.add_argument("--real", type=Path, default=REAL, help="verdicts of the real models")
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        copyfile(given.results / f"tables/{name}.csv", given.output / f"{name}.csv")
    files = [file for file in (given.output / "verdict.csv", given.real) if file.is_file()]
    use_style()
    table = points(files)
    save(plot(table), table, given.output / "lead")


if __name__ == "__main__":
    main()
