"""The pages' tables of what `verdict.py` and `trials.py` wrote: `score.smk` runs it.

Reads `perplexities.csv` and `verdict.csv` in the folder of tables, and `trials.csv` where it is, and
writes a Markdown file beside each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from verdict import TEXTS

from leap_repro.report.layout import format_sparsity
from leap_repro.report.render import Table
from leap_repro.store.atomic import write_text

PLACE = ["model", "sparsity", "method"]


def perplexities(found: pd.DataFrame) -> Table:
    """A row per model, sparsity and method: tokens read, seeds, perplexity on both texts."""
    wide = found[found["text"].isin(list(TEXTS))].pivot(
        index=[*PLACE, "tokens", "seeds"], columns="text", values=["perplexity", "over_dense"]
    )
    rows = []
    for (model, sparsity, method, tokens, seeds), row in wide.iterrows():
        shown = {"Model": model, "Sparsity": format_sparsity(sparsity), "Method": method}
        shown |= {"Tokens": f"{tokens:,}", "Seeds": str(seeds)}
        for text, title in TEXTS.items():
            shown[f"PPL {title}"] = f"{row['perplexity', text]:.2f}"
            shown[f"ln(PPL / dense), {title}"] = f"{row['over_dense', text]:.3f}"
        rows.append(shown)
    table = pd.DataFrame(rows)
    caption = "Perplexity of the hardened masks"
    notes = "Tokens: of calibration or training. The mean loss over seeds and windows, exponentiated."
    return Table(caption, table, found, notes=notes, words=3)


def verdicts(found: pd.DataFrame) -> Table:
    """A row per model, sparsity and schedule of LEAP: the difference to ADMM on both texts, the verdict."""
    rows = []
    for (model, sparsity, method), group in found.groupby(PLACE, sort=False):
        first = group.iloc[0]
        shown = {"Model": model, "Sparsity": format_sparsity(sparsity), "Method": method}
        shown |= {"Tokens": f"{first['tokens']:,}", "Seeds": str(first["seeds"])}
        for text, title in TEXTS.items():
            row = group[group["text"] == text].iloc[0]
            interval = f"[{row['lower']:+.3f}, {row['upper']:+.3f}]"
            shown[f"LEAP − ADMM, {title}"] = f"{row['difference']:+.3f} {interval}".replace("-", "−")
        rows.append(shown | {"Reference": first["reference"], "Verdict": first["verdict"]})
    caption = "ln(PPL LEAP / PPL ADMM) and its 95 % interval"
    notes = "Reference: the ADMM with the lowest loss on held-out C4."
    return Table(caption, pd.DataFrame(rows), found, notes=notes, words=3)


def trials(found: pd.DataFrame) -> Table:
    """A row per trial, the lowest held-out loss first."""
    shown = pd.DataFrame(
        {
            "Trial": found["trial"],
            "Setting": found["setting"],
            "Hardened": found["held_out_topk"].map("{:.3f}".format),
            "Relaxed": found["held_out_relaxed"].map("{:.3f}".format),
        }
    )
    caption = "Loss of the trials at their end, on held-out C4 in nats per token"
    return Table(caption, shown, found, words=2)


KINDS = {"perplexities": perplexities, "verdict": verdicts, "trials": trials}


def main() -> None:
    """Write a page's table beside each CSV that is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, table in KINDS.items():
        if (folder / f"{name}.csv").is_file():
            write_text(folder / f"{name}.md", table(pd.read_csv(folder / f"{name}.csv")).markdown())


if __name__ == "__main__":
    main()
