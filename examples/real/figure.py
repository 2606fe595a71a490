"""ln(PPL / dense) against the tokens that a method reads: `score.smk` draws it from `tables/perplexities.csv`.

A row of panels per model, one per text. The budgets of one method are joined.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pandas as pd
from verdict import TEXTS

from leap_repro.report.figures.style import (
    ADMM_LOOK,
    LEAP_LOOK,
    OTHERS,
    entries_of,
    legend_below,
    logarithmic,
    panels,
    save,
    use_style,
)
from leap_repro.report.layout import format_sparsity

BUDGET = re.compile(r"-(\d+k|\d+m|\d\.\d)$")
"""The end of a method's name that tells its budget."""
LABELS = {
    "leap-cold-start": "LEAP, cold start",
    "leap": "LEAP, the paper's schedule",
    "admm": "ADMM",
    "alps": "ALPS",
    "elsa": "ELSA",
    "sparsegpt": "SparseGPT",
    "wanda": "Wanda",
    "wanda+recover": "Wanda, then recovery",
    "admm+recover": "ADMM, then recovery",
}
FIXED = {
    "leap-cold-start": LEAP_LOOK,
    "leap": LEAP_LOOK | {"linestyle": ":", "marker": "^", "linewidth": 1.5},
    "admm": ADMM_LOOK,
}
LOOKS: dict[str, dict[str, Any]] = FIXED | dict(
    zip([name for name in LABELS if name not in FIXED], OTHERS, strict=False)
)


def drawn(found: pd.DataFrame, sparsity: float) -> pd.DataFrame:
    """The rows of methods that read tokens, each with the name that its budgets share."""
    rows = found[found["sparsity"].eq(sparsity) & found["tokens"].gt(0)]
    rows = rows.assign(family=rows["method"].str.replace(BUDGET, "", regex=True))
    return rows[rows["family"].isin(list(LABELS)) & rows["text"].isin(list(TEXTS))]


def main() -> None:
    """Read, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--perplexities", type=Path, required=True)
    parser.add_argument("--sparsity", type=float, default=0.6)
    parser.add_argument("--output", type=Path, required=True, help="path without suffix")
    given = parser.parse_args()
    rows = drawn(pd.read_csv(given.perplexities), given.sparsity)
    places = [(model, text) for model in sorted(rows["model"].unique()) for text in TEXTS]
    use_style()
    figure, axes = panels(len(places), "tokens (log scale)", "ln(PPL / dense)", 2.4, columns=2)
    for (model, text), axis in zip(places, axes, strict=True):
        here = rows[(rows["model"] == model) & (rows["text"] == text)]
        for name in [name for name in LABELS if name in set(here["family"])]:
            curve = here[here["family"] == name].sort_values("tokens")
            axis.plot(curve["tokens"], curve["over_dense"], label=LABELS[name], **LOOKS[name])
        axis.set_title(f"{model}, {format_sparsity(given.sparsity)}, {TEXTS[text]}")
        logarithmic(axis.xaxis)
    legend_below(figure, entries_of(*axes))
    save(figure, rows, given.output)


if __name__ == "__main__":
    main()
