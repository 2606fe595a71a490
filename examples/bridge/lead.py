"""LEAP's lead over ADMM in perplexity against training tokens a weight.

`python examples/bridge/lead.py RESULTS MODEL OUTPUT`. RESULTS is the folder of the bridge's results,
MODEL that of its model. The tables of trials, perplexities and verdicts and the model's training log
are copied to OUTPUT. The verdicts are written there as a page's table (`lead.md`) and drawn (`lead.png`,
`lead.pdf`), in the figure with the real models where `examples/real/results/verdict.csv` exists.
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
from leap_repro.report.render import Table
from leap_repro.store.atomic import write_text

TABLES = ("trials", "perplexities", "verdict")
TEXTS = {"wikitext2": "WikiText-2", "c4": "C4"}
START = {"paper": "the paper's schedule", "cold": "cold start"}
REAL = Path(__file__).resolve().parents[1] / "real/results/verdict.csv"
LEAD = "ln(PPL LEAP / PPL ADMM)"
NOTE = f"{LEAD} on held-out text, with 95 % intervals; below 0 LEAP leads"
COLUMNS = {
    "start": "LEAP",
    "tokens_a_weight": "Tokens a weight",
    "reference": "ADMM",
    **TEXTS,
    "verdict": "Verdict",
}
"""Of the page's table."""


def points(files: list[Path]) -> pd.DataFrame:
    """The rows of verdict tables with LEAP's start and its tokens a weight, sorted by them."""
    table = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    cold = table["method"].str.startswith("leap-cold-start")
    table["start"] = cold.map({True: "cold", False: "paper"})
    table["tokens_a_weight"] = table["tokens"] / table["weights"]
    return table.sort_values(["model", "sparsity", "start", "tokens_a_weight"], ignore_index=True)


def with_interval(row: pd.Series) -> str:
    """A lead and its interval as the page shows them."""
    shown = f"{row['difference']:+.4f} [{row['lower']:+.4f}, {row['upper']:+.4f}]"
    return shown.replace("-", "−")


def page(table: pd.DataFrame) -> str:
    """A Markdown row per budget and start of one model, a column per text."""
    rows = table.assign(
        start=table["start"].map(START),
        tokens_a_weight=table["tokens_a_weight"].map("{:.1f}".format),
        lead=table.apply(with_interval, axis=1),
    )
    of = ["start", "tokens_a_weight", "reference", "verdict"]
    shown = rows.pivot(index=of, columns="text", values="lead").reset_index()
    shown = shown[[column for column in COLUMNS if column in shown]].rename(columns=COLUMNS)
    caption = f"{NOTE} ({table['seeds'].max()} seeds)"
    return Table(caption, shown, shown, words=len(shown.columns)).markdown()


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
    parser.add_argument("model", type=Path, help="folder that train_model.py wrote")
    parser.add_argument("output", type=Path, help="folder of tables and figure")
    parser.add_argument("--real", type=Path, default=REAL, help="verdicts of the real models")
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    copyfile(given.model / "training.csv", given.output / "training.csv")
    for name in TABLES:
        copyfile(given.results / f"tables/{name}.csv", given.output / f"{name}.csv")
    ours = given.output / "verdict.csv"
    write_text(given.output / "lead.md", page(points([ours])))
    table = points([file for file in (ours, given.real) if file.is_file()])
    use_style()
    save(plot(table), table, given.output / "lead")


if __name__ == "__main__":
    main()
