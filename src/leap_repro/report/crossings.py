"""Lines of a grid beside others: `python -m leap_repro.report.crossings`.

A line may cross two methods (one's budgets, the other's masks): it is compared with the line that it varies, with LEAP
and with ADMM. The table of variants is made of the same rows.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.report.command import read, table_parser
from leap_repro.report.layout import (
    LEAP,
    REFERENCE,
    Methods,
    called,
    format_difference,
    format_sparsity,
    format_spread,
    label_of,
    perplexity_columns,
    seeds_in_words,
    spread_of_mean,
    spreads,
    trained_note,
    unseeded,
    wide,
)
from leap_repro.report.render import Table
from leap_repro.report.statistics import ABSENT, Difference, paired_difference

BASE = "base"
COLUMNS = ["method", "variant_of", "models", "sparsity_target", "average", "average_sd"]
COLUMNS += ["perplexity_ratio", "sparsity_actual"]


def line_rows(results: pd.DataFrame, methods: Methods, names: Sequence[str]) -> pd.DataFrame:
    """One row per (line, sparsity) that ran, in the order of `names`: averages over its models, hardened masks.

    COLUMNS, but `average_sd` (over seeds) only where some line has several. The ratio is of perplexities to those of
    the line that it varies, at the longest window, as a geometric mean over models.
    """
    frame, over = wide(results), spreads(results)
    ppl, rows = perplexity_columns(frame)[-1], []
    for name in names:
        base = methods[name]["variant_of"]
        for sparsity in sorted(frame.loc[frame["method"] == name, "sparsity_target"].unique()):
            here = frame[frame["sparsity_target"] == sparsity]
            own, other = (here[here["method"] == method].set_index("model") for method in (name, base))
            ratio = math.exp(np.log(own[ppl] / other[ppl]).mean()) if len(other) else math.nan
            spread = spread_of_mean(over.xs((sparsity, name), level=("sparsity_target", "method")))
            row = [name, base, len(own), sparsity, own["average"].mean(), spread, ratio, own["sparsity_actual"].mean()]
            rows.append(row)
    numbers = pd.DataFrame(rows, columns=COLUMNS)
    return numbers if numbers["average_sd"].notna().any() else numbers.drop(columns="average_sd")


def minus(
    numbers: pd.DataFrame, references: Sequence[str | None], outcomes: pd.DataFrame, methods: Methods
) -> list[Difference]:
    """Each row's difference to the line beside it; ABSENT to itself, to None and to what did not run there."""
    found = []
    for row, reference in zip(numbers.itertuples(), references, strict=True):
        here = outcomes[outcomes["sparsity_target"] == row.sparsity_target]
        if isinstance(reference, str) and reference != row.method:
            found.append(paired_difference(here, row.method, reference, unseeded(methods)))
        else:
            found.append(ABSENT)
    return found


def shown_lines(numbers: pd.DataFrame, methods: Methods, title: str) -> pd.DataFrame:
    """The columns that every table of lines starts with, as text."""
    over = numbers.get("average_sd", pd.Series(math.nan, numbers.index))
    return pd.DataFrame(
        {
            title: [label_of(name, methods) for name in numbers["method"]],
            "What it changes": [methods[name].get("changes", "") for name in numbers["method"]],
            "Of": ["" if pd.isna(name) else label_of(name, methods) for name in numbers["variant_of"]],
            "Models": numbers["models"].astype(str),
            "Sparsity": numbers["sparsity_target"].map(format_sparsity),
            "Average": [format_spread(*pair) for pair in zip(numbers["average"], over, strict=True)],
        }
    )


def crossings_table(results: pd.DataFrame, outcomes: pd.DataFrame, methods: Methods, lines: Sequence[str]) -> Table:
    """The given lines' averages, and what they have more than their base, LEAP and ADMM.

    Where all lines vary LEAP (or all ADMM), its own column says what a column of the base would repeat.
    """
    for name in lines:
        if name not in methods:
            raise UserError(f"--lines: {name!r} is not a method of this grid, which has {', '.join(methods)}")
    numbers = line_rows(results, methods, lines)
    shown = shown_lines(numbers, methods, "Line")
    others = {module: name for module in (LEAP, REFERENCE) if (name := called(module, methods))}
    beside = {BASE: numbers["variant_of"].tolist()} | {key: [name] * len(numbers) for key, name in others.items()}
    for key, references in beside.items():
        pairs = minus(numbers, references, outcomes, methods)
        numbers[f"minus_{key}"] = [pair.value for pair in pairs]
        numbers[f"stderr_minus_{key}"] = [pair.stderr for pair in pairs]
        add_over_models(numbers, pairs, f"_minus_{key}")
        numbers[f"seeds_minus_{key}"] = [pair.seeds for pair in pairs]
        title = "Δ of" if key == BASE else f"Δ {methods[others[key]]['label']}"
        said_again = key == BASE and set(references) in [{name} for name in others.values()]
        if not said_again:
            shown[title] = [format_difference(pair.value, pair.stderr) for pair in pairs]
    shown["PPL ratio"] = [format_ratio(ratio) for ratio in numbers["perplexity_ratio"]]
    notes = NOTES.format(seeds=seeds_in_words(results)) + trained_note(numbers["method"], methods)
    return Table("Variants beside their base, LEAP and ADMM, hardened masks", shown, numbers, notes=notes)


def add_over_models(numbers: pd.DataFrame, pairs: Sequence[Difference], of: str = "") -> None:
    """The ends of the differences' intervals over models, in two columns of the CSV."""
    numbers[f"low_over_models{of}"] = [pair.models_interval[0] for pair in pairs]
    numbers[f"high_over_models{of}"] = [pair.models_interval[1] for pair in pairs]


def format_ratio(ratio: float) -> str:
    """Three decimals; empty for NaN."""
    return "" if math.isnan(ratio) else f"{ratio:.3f}"


NOTES = (
    "Averages are over the models that a method ran on; ± is the standard deviation over seeds. A row without ± ran "
    "with one seed, or no seed changes it; its Δ is then to the mean of the other's seeds. Δ: the method's six-task "
    "average minus that of the method in column Of, of LEAP and of ADMM, in points ± standard error, paired over "
    "models, questions{seeds}; the CSV has the intervals over models. PPL ratio: to the method in column Of, "
    "geometric mean over models, at the longest window."
)


def main(arguments: argparse.Namespace) -> None:
    """Read the collected tables of the models and write the table."""
    crossings_table(*read(arguments), arguments.methods, arguments.lines).write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = table_parser("crossings", __doc__)
    parser.add_argument("--lines", required=True, nargs="+", help="the methods that are rows, in their order")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
