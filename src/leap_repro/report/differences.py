"""LEAP minus ADMM with all that a reader needs to judge it: `python -m leap_repro.report.differences`.

A row for every model and sparsity, for the mean of the models, and for the mean of all cells beside the published
difference. The table shows LEAP; its CSV has every other method of the grid that prunes, too.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import pandas as pd

from leap_repro.cli import run_stage
from leap_repro.report.command import read, table_parser
from leap_repro.report.layout import (
    LEAP,
    REFERENCE,
    Methods,
    called,
    format_difference,
    format_interval,
    format_p,
    format_sparsity,
    is_dense,
    unseeded,
)
from leap_repro.report.published import published_differences, signed
from leap_repro.report.render import Table
from leap_repro.report.statistics import Difference, holm, mean_over_cells, paired_difference

Cells = dict[tuple[float, str], Difference]
"""{(sparsity, model): difference}, sorted by sparsity, then as the models come."""
MEAN, ALL = "mean of the models", "mean of all cells"
COLUMNS = ["method", "reference", "sparsity_target", "model", "difference", "stderr", "dof", "low", "high"]
COLUMNS += ["low_over_models", "high_over_models", "p", "p_holm", "seeds", "questions", "models", "published"]


def differences_table(
    outcomes: pd.DataFrame, methods: Methods, stands_for: dict[str, str | None] | None = None
) -> Table:
    """`stands_for` maps our models to the published names. Empty in a grid without LEAP or ADMM."""
    reference, ours = called(REFERENCE, methods), called(LEAP, methods)
    compared = [n for n, facts in methods.items() if not (facts["variant_of"] or is_dense(n, methods))]
    rows = [
        row
        for name in compared
        if reference is not None and name != reference
        for row in method_rows(outcomes, name, methods, stands_for or {})
    ]
    numbers = pd.DataFrame(rows, columns=COLUMNS)
    own = numbers[numbers["method"] == ours]
    labels = [methods[name]["label"] if name else module for name, module in ((ours, "LEAP"), (reference, "ADMM"))]
    caption = f"{labels[0]} minus {labels[1]}: points of the average over six zero-shot tasks, hardened masks"
    return Table(caption, _shown(own), numbers, notes=_notes(own, labels))


def method_rows(
    outcomes: pd.DataFrame, name: str, methods: Methods, stands_for: dict[str, str | None]
) -> Iterator[list]:
    """One method's rows, COLUMNS: of each sparsity its models, then their mean; at last the mean of all cells.

    The cells are those with the most seeds: a curve of one seed beside them is no part of the same evidence.
    """
    reference, without = called(REFERENCE, methods) or REFERENCE, unseeded(methods)
    both = outcomes[outcomes["method"].isin([name, reference])]
    cells = cell_differences(both, name, reference, without)
    if not cells:
        return
    adjusted = dict(zip(cells, holm([cell.p_value for cell in cells.values()]), strict=True))
    theirs = published_differences(methods[name]["label"].split(" (")[0])
    published = {(s, model): theirs.get((stands_for.get(model) or "", s), math.nan) for s, model in cells}
    for sparsity in dict.fromkeys(sparsity for sparsity, _ in cells):
        here = [cell for cell in cells if cell[0] == sparsity]
        for cell in here:
            yield [name, reference, *cell, *_numbers(cells[cell], adjusted[cell]), published[cell]]
        if len(here) > 1:
            mean = paired_difference(_of(both, here), name, reference, without)
            yield [name, reference, sparsity, MEAN, *_numbers(mean), _mean(published[cell] for cell in here)]
    if len({sparsity for sparsity, _ in cells}) > 1:
        mean = mean_over_cells(_of(both, cells), name, reference, without)
        yield [name, reference, math.nan, ALL, *_numbers(mean), _mean(iter(published.values()))]


def cell_differences(both: pd.DataFrame, name: str, reference: str, without: frozenset[str]) -> Cells:
    """Those of the cells that have the most seeds."""
    models = list(dict.fromkeys(both["model"]))
    by_cell = dict(iter(both.groupby(["sparsity_target", "model"])))
    found = {
        (sparsity, model): paired_difference(by_cell[sparsity, model], name, reference, without)
        for sparsity, model in sorted(by_cell, key=lambda cell: (cell[0], models.index(cell[1])))
    }
    most = max((difference.seeds for difference in found.values()), default=0)
    return {cell: difference for cell, difference in found.items() if difference.seeds == most > 0}


def _of(outcomes: pd.DataFrame, cells: list[tuple[float, str]] | Cells) -> pd.DataFrame:
    """The answers of some cells."""
    places = pd.MultiIndex.from_frame(outcomes[["sparsity_target", "model"]])
    return outcomes[places.isin(list(cells))]


def _numbers(found: Difference, adjusted: float = math.nan) -> list[float]:
    counts = [found.seeds, found.questions, found.models]
    ends = [*found.interval, *found.models_interval]
    return [found.value, found.stderr, found.dof, *ends, found.p_value, adjusted, *counts]


def _mean(values: Iterator[float]) -> float:
    """NaN if any is."""
    every = list(values)
    return sum(every) / len(every)


def _shown(numbers: pd.DataFrame) -> pd.DataFrame:
    pairs = zip(numbers["difference"], numbers["stderr"], strict=True)
    return pd.DataFrame(
        {
            "Sparsity": ["" if math.isnan(s) else format_sparsity(s) for s in numbers["sparsity_target"]],
            "Model": numbers["model"],
            "Δ": [format_difference(*pair) for pair in pairs],
            "95 % interval": intervals(numbers, "low", "high"),
            "95 % over models": intervals(numbers, "low_over_models", "high_over_models"),
            "p": numbers["p"].map(format_p),
            "p (Holm)": numbers["p_holm"].map(format_p),
            "Seeds": numbers["seeds"].astype(str),
            "Questions": numbers["questions"].astype(str),
            "Published Δ": numbers["published"].map(signed),
        }
    )


def intervals(numbers: pd.DataFrame, low: str, high: str) -> list[str]:
    """The intervals whose ends are in two columns, as text."""
    return [format_interval(*ends) for ends in zip(numbers[low], numbers[high], strict=True)]


def _notes(numbers: pd.DataFrame, labels: list[str]) -> str:
    seeds = numbers["seeds"].max() if len(numbers) else 0
    held = "questions and seeds" if seeds > 1 else "questions only: there is one seed"
    return NOTES.format(ours=labels[0], reference=labels[1], held=held, cells=numbers["p_holm"].notna().sum())


NOTES = (
    "Δ: {ours} minus {reference}, answer by answer, ± standard error, which covers {held}. Interval and p (two-sided): "
    "Student's t, for these models. Over models: the interval as if the models were drawn from many (Student's t, "
    "models − 1 degrees of freedom). Holm: p corrected for the {cells} cells together; means are not further "
    "tests. Published Δ: within one source, and of a mean only if every cell has one. A miniature is not the published "
    "model: compare signs and orderings."
)


def main(arguments: argparse.Namespace) -> None:
    """Read the collected tables of the models and write the table."""
    _, outcomes = read(arguments)
    differences_table(outcomes, arguments.methods, arguments.stands_for).write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    return table_parser("differences", __doc__)


if __name__ == "__main__":
    run_stage(main, parser())
