"""`python tools/summary.py`: the README's table, from the published evidence's main table.

A row per method, averaged over the models: accuracy, the difference to ADMM, perplexity, at 50 % and at 60 %.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd

from leap_repro.cli import run_stage
from leap_repro.store.atomic import write_text

METHODS = {
    "magnitude": "Magnitude",
    "wanda": "Wanda",
    "sparsegpt": "SparseGPT",
    "admm": "ADMM",
    "leap": "LEAP",
    "elsa": "ELSA (trains weights)",
}
SPARSITIES = (0.5, 0.6)
PERPLEXITY = "perplexity@"


def summary(main: pd.DataFrame) -> str:
    """The table in Markdown. `main` is main.csv: a row per sparsity and method, with a column Mean, difference_to_admm
    and difference_stderr, and one `perplexity@<length> <model>` for each model."""
    rows = main.set_index(["sparsity_target", "method"])
    dense = rows.loc[(0.0, "dense")]
    lines = [
        "| Method | 50 %: accuracy | Δ ADMM | PPL | 60 %: accuracy | Δ ADMM | PPL |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        _line("Dense", [dense, dense]),
    ]
    for method, label in METHODS.items():
        found = [rows.loc[(sparsity, method)] if (sparsity, method) in rows.index else None for sparsity in SPARSITIES]
        lines.append(_line(label, found))
    return "\n".join(lines) + "\n"


def _line(label: str, found: list[pd.Series | None]) -> str:
    return " | ".join([f"| {label}", *(cell for row in found for cell in _cells(row))]) + " |"


def _cells(row: pd.Series | None) -> tuple[str, str, str]:
    """Accuracy, difference and perplexity of a method at a sparsity; empty where it did not run."""
    if row is None:
        return "", "", ""
    difference = ""
    if not math.isnan(row["difference_to_admm"]):
        difference = f"{row['difference_to_admm']:+.2f} ± {row['difference_stderr']:.2f}".replace("-", "−")
    return f"{row['Mean']:.2f}", difference, f"{_perplexity(row):.3f}"


def _perplexity(row: pd.Series) -> float:
    """The geometric mean over models."""
    values = [float(value) for name, value in row.items() if str(name).startswith(PERPLEXITY)]
    return math.exp(sum(map(math.log, values)) / len(values))


def main(arguments: argparse.Namespace) -> None:
    """Read, write."""
    write_text(arguments.output, summary(pd.read_csv(arguments.main)))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python tools/summary.py", description=__doc__)
    parser.add_argument("--main", type=Path, default=Path("figures/miniature/evidence/main.csv"))
    parser.add_argument("--output", type=Path, default=Path("figures/summary.md"))
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
