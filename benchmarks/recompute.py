"""`python benchmarks/recompute.py figures/miniature/evidence`: compute a published folder's differences anew.

From its answers.parquet alone, with statsmodels and scipy in place of `report/statistics.py`: every difference with its
standard error, degrees of freedom, intervals and p-values in the tables, in the figures' data and among the claims.
Prints how many numbers of each file were compared; exit status 1 if one of them differs. docs/statistics.md has the
formulas.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from leap_repro.cli import report_errors
from leap_repro.errors import UserError
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.store.sums import checked_file

TOLERANCE = 1e-8
"""Relative, and absolute in points: two ways to sum in float64 differ by less."""
LEAP, ADMM, DENSE = "leap", "admm", "dense"
FOR_ALL = ("low_over_models", "high_over_models")


class Answers:
    """The answers of a published folder: 0 or 1 by cell, a vector over questions. `tasks`: of which task each is."""

    def __init__(self, table: pd.DataFrame, unseeded: Iterable[str]) -> None:
        self.tasks, self.unseeded = table["task"].to_numpy(), frozenset(unseeded)
        self.cells: dict[tuple[str, str, float], dict[int, np.ndarray]] = {}
        for name in table.columns.drop(["task", "leaf", "index"]):
            model, method, sparsity, seed = name.rsplit("/", 3)
            if table[name].isna().any():
                raise UserError(f"answers.parquet: cell {name} was not asked every question: it cannot be compared")
            own = self.cells.setdefault((model, method, float(sparsity)), {})
            own[int(seed)] = table[name].to_numpy(dtype=float)
        self.models = list(dict.fromkeys(model for model, _, _ in self.cells))

    def both_ran(self, method: str, reference: str, sparsity: float) -> list[str]:
        """The models on which both ran at a sparsity."""
        return [m for m in self.models if {(m, method, sparsity), (m, reference, sparsity)} <= set(self.cells)]

    def pairs(self, model: str, sides: list[tuple[str, str, float, float]]) -> tuple[np.ndarray, bool]:
        """(points [questions, seeds], whether a method that seeds change has a single run): the mean over `sides`,
        (method, reference, their sparsities), of one model."""
        tables, once = [], False
        for method, reference, sparsity, other in sides:
            ours, theirs = self.cells[model, method, sparsity], self.cells[model, reference, other]
            alone = [name in self.unseeded for name in (method, reference)]
            single = [len(runs) == 1 for runs in (ours, theirs)]
            if alone[0] or (single[0] and not single[1]):
                ours = dict.fromkeys(theirs, next(iter(ours.values())))
            elif alone[1] or (single[1] and not single[0]):
                theirs = dict.fromkeys(ours, next(iter(theirs.values())))
            once |= single[0] != single[1] and not any(alone)
            tables.append({seed: 100 * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs})
        seeds = sorted(set.intersection(*map(set, tables)))
        return np.stack([sum(table[seed] for table in tables) / len(tables) for seed in seeds], axis=1), once


@dataclass(frozen=True)
class Anew:
    """A difference, computed anew: its value and errors in points, intervals at 95 %."""

    value: float
    stderr: float
    dof: float
    low: float
    high: float
    p: float
    low_over_models: float
    high_over_models: float


def task_mean(values: np.ndarray, tasks: np.ndarray) -> float:
    """The mean over tasks of the means over their questions."""
    return float(pd.Series(values).groupby(tasks).mean().mean())


def mean_square_of_rest(table: np.ndarray) -> float:
    """Of the two-way analysis of variance of a table [questions, seeds], by subtraction of sums of squares."""
    questions, seeds = table.shape
    centred = table - table.mean()
    of_rows = seeds * (centred.mean(axis=1) ** 2).sum()
    of_columns = questions * (centred.mean(axis=0) ** 2).sum()
    return float((centred**2).sum() - of_rows - of_columns) / ((questions - 1) * (seeds - 1))


def anew(answers: Answers, models: list[str], sides: list[tuple[str, str, float, float]]) -> Anew:
    """The mean over models and sides of a difference."""
    return of_points(answers, [answers.pairs(model, sides) for model in models])


def of_points(answers: Answers, found: list[tuple[np.ndarray, bool]]) -> Anew:
    """The mean over models of their points, each as `Answers.pairs` has them."""
    names, share = list(dict.fromkeys(answers.tasks)), 1 / len(found) ** 2
    mean = sum(points.mean(axis=1) for points, _ in found) / len(found)
    parts = [DescrStatsW(mean[answers.tasks == name]) for name in names]
    of_tasks = np.array([part.std_mean**2 for part in parts]) / len(names) ** 2
    variance = of_questions = float(of_tasks.sum())
    doubt = float((of_tasks**2 / np.array([part.nobs - 1 for part in parts])).sum())
    of_models = [task_mean(points.mean(axis=1), answers.tasks) for points, _ in found]
    if min(points.shape[1] for points, _ in found) > 1:
        of_seeds, of_both, weights = 0.0, 0.0, []
        for points, once in found:
            runs = 1 / points.shape[1] + once
            averages = [task_mean(column, answers.tasks) for column in points.T]
            rest = sum(
                mean_square_of_rest(points[answers.tasks == name]) / (answers.tasks == name).sum() for name in names
            )
            of_seeds += share * runs * float(np.var(averages, ddof=1))
            of_both += share * runs * rest / len(names) ** 2
            weights.append((share * runs, points.shape[1] - 1))
        variance = max(of_questions + of_seeds - of_both, of_questions, of_seeds)
        free = sum(part for part, _ in weights) ** 2 / sum(part**2 / count for part, count in weights)
        doubt += of_seeds**2 / free
    value, stderr = float(np.mean(of_models)), float(np.sqrt(variance))
    dof = variance**2 / doubt if variance else len(answers.tasks) - len(names)
    low, high = stats.t.interval(0.95, dof, value, stderr) if variance else (value, value)
    p = float(2 * stats.t.sf(abs(value / stderr), dof)) if variance else float(value == 0)
    over = DescrStatsW(of_models).tconfint_mean() if len(found) > 1 else (np.nan, np.nan)
    return Anew(value, stderr, dof, float(low), float(high), p, *map(float, over))


Numbers = Iterator[tuple[str, float, float]]
"""(what, as published, computed anew)"""


def compared(row: pd.Series, found: Anew, columns: dict[str, str], place: str) -> Numbers:
    """The numbers of a row; `columns`: {field of `Anew`: the row's column}."""
    for field, column in columns.items():
        if column in row.index and not pd.isna(row[column]):
            yield f"{place}: {column}", float(row[column]), getattr(found, field)


def of_lines(answers: Answers, table: pd.DataFrame, columns: dict[str, str], reference: str | None = None) -> Numbers:
    """Rows of a method at a sparsity over the models that both ran on; `reference` names the column of the other, or
    is the other."""
    for _, row in table.dropna(subset=[columns["value"]]).iterrows():
        other = row[reference] if reference in table else reference
        at = row["sparsity_target"]
        models = answers.both_ran(row["method"], other, at)
        found = anew(answers, models, [(row["method"], other, at, at)])
        yield from compared(row, found, columns, f"{row['method']} at {at:g}")


PLAIN = {name: name for name in ("stderr", "dof", "low", "high", "p", *FOR_ALL)} | {"value": "difference"}
TO_ADMM = {"value": "difference_to_admm", "stderr": "difference_stderr"} | {name: name for name in FOR_ALL}


def of_differences(answers: Answers, table: pd.DataFrame) -> Numbers:
    """The table of differences, or the forest plot's data, with Holm's p where there is one."""
    for name, rows in table.groupby("method", sort=False):
        cells = rows[rows["model"].isin(answers.models)]
        for _, row in rows.iterrows():
            covered = cells_of(row, cells)
            sides = [(name, row["reference"], s, s) for s in sorted(covered["sparsity_target"].unique())]
            found = anew(answers, list(dict.fromkeys(covered["model"])), sides)
            yield from compared(row, found, PLAIN, f"{name}, {row['model']} at {row['sparsity_target']:g}")
        if "p_holm" in table:
            adjusted = multipletests(cells["p"], method="holm")[1]
            for place, one, other in zip(cells["model"], cells["p_holm"], adjusted, strict=True):
                yield f"{name}, {place}: p_holm", one, float(other)


def cells_of(row: pd.Series, cells: pd.DataFrame) -> pd.DataFrame:
    """The cells that a row is about: its own, those of its sparsity, or all that have the most seeds."""
    if np.isnan(row["sparsity_target"]):
        return cells[cells["seeds"] == cells["seeds"].max()]
    here = cells[cells["sparsity_target"] == row["sparsity_target"]]
    return here[here["model"] == row["model"]] if row["model"] in set(cells["model"]) else here


def of_model(answers: Answers, table: pd.DataFrame, model: str) -> Numbers:
    """One model's table."""
    for _, row in table.dropna(subset=["difference_to_admm"]).iterrows():
        at = row["sparsity_target"]
        found = anew(answers, [model], [(row["method"], ADMM, at, at)])
        yield from compared(row, found, TO_ADMM, f"{row['method']} at {at:g}")


def of_published(answers: Answers, table: pd.DataFrame) -> Numbers:
    """Our differences beside the published ones."""
    for _, row in table.iterrows():
        for reference, at in ((ADMM, row["sparsity"]), (DENSE, 0.0)):
            columns = {"value": f"minus_{reference}", "stderr": f"stderr_minus_{reference}"}
            if not pd.isna(row[columns["value"]]):
                found = anew(answers, [row["model"]], [(row["method"], reference, row["sparsity"], at)])
                yield from compared(row, found, columns, f"{row['method']} on {row['model']}")


def of_claims(answers: Answers, table: pd.DataFrame) -> Numbers:
    """The claims that one method is above another."""
    columns = {"value": "value"} | {name: name for name in ("low", "high", *FOR_ALL)}
    for _, row in table.dropna(subset=["method", "reference"]).iterrows():
        sparsities = [float(found) / 100 for found in re.findall(r"([\d.]+) %", row["measured"].split(";")[0])]
        sides = [(row["method"], row["reference"], s, s) for s in sparsities]
        models = [m for m in answers.models if all(m in answers.both_ran(*side[:3]) for side in sides)]
        yield from compared(row, anew(answers, models, sides), columns, row["claim"])


def of_texts(answers: Answers, table: pd.DataFrame) -> Numbers:
    """The table of texts: LEAP − ADMM, LEAP and ADMM on each text, and their differences between texts."""
    texts = [name.removeprefix("stderr ") for name in table if name.startswith("stderr ")]
    whole = table["model"].isin(answers.models)
    for _, row in table.iterrows():
        here = table[whole & (table["sparsity_target"] == row["sparsity_target"])]
        models = [row["model"]] if row["model"] in answers.models else list(dict.fromkeys(here["model"]))
        signs = {LEAP: 1, ADMM: -1} if row["quantity"] == "lead" else {row["quantity"]: 1}
        for text in texts:
            one, _, other = text.partition(" − ")
            weights = {line_on(one, method): sign for method, sign in signs.items()}
            weights |= {line_on(other, method): -sign for method, sign in signs.items() if other}
            points = [weighted(answers, model, row["sparsity_target"], weights) for model in models]
            columns = {"value": text} | {name: f"{name} {text}" for name in ("stderr", "low", "high", "p")}
            columns |= {f"{end}_over_models": f"{end} over models {text}" for end in ("low", "high")}
            place = f"{row['quantity']}, {row['model']} at {row['sparsity_target']:g}"
            yield from compared(row, of_points(answers, points), columns, place)


def line_on(text: str, method: str) -> str:
    """The line of a method on a text."""
    return method if text == "usual" else f"{method}-{text}"


def weighted(answers: Answers, model: str, sparsity: float, weights: dict[str, int]) -> tuple[np.ndarray, bool]:
    """The methods' answers times their weights, in points [questions, seeds], over the seeds that all have."""
    cells = {method: answers.cells[model, method, sparsity] for method in weights}
    seeds = sorted(set.intersection(*map(set, cells.values())))
    columns = [sum(weight * cells[method][seed] for method, weight in weights.items()) for seed in seeds]
    return 100 * np.stack(columns, axis=1), False


def of_folder(folder: Path, answers: Answers) -> dict[str, list[tuple[str, float, float]]]:
    """{file: its numbers} of every file of a published folder that holds differences."""
    found: dict[str, list[tuple[str, float, float]]] = {}
    for path in sorted(folder.glob("*.csv")):
        table, numbers = pd.read_csv(path), found.setdefault(path.name, [])
        if path.stem in answers.models:
            numbers += of_model(answers, table, path.stem)
        elif path.stem == "main":
            numbers += of_lines(answers, table, TO_ADMM, ADMM)
        elif path.stem in ("differences", "forest"):
            numbers += of_differences(answers, table)
        elif path.stem == "fact-free":
            numbers += of_texts(answers, table)
        elif path.stem in ("crossings", "annealing", "few-steps"):
            for key, other in (("base", "variant_of"), (LEAP, LEAP), (ADMM, ADMM)):
                columns = {"value": f"minus_{key}", "stderr": f"stderr_minus_{key}"}
                columns |= {name: f"{name}_minus_{key}" for name in FOR_ALL}
                numbers += of_lines(answers, table, columns, other) if columns["value"] in table else []
        elif path.stem == "variants":
            numbers += of_lines(answers, table, PLAIN, "variant_of")
        elif path.stem == "schedules":
            numbers += of_lines(answers, table, PLAIN, LEAP)
        elif path.stem == "published":
            numbers += of_published(answers, table)
        elif path.stem == "claims":
            numbers += of_claims(answers, table)
    return {name: numbers for name, numbers in found.items() if numbers}


def differs(published: float, found: float) -> bool:
    """By more than rounding."""
    return not np.isclose(published, found, rtol=TOLERANCE, atol=TOLERANCE)


def main(arguments: argparse.Namespace) -> int:
    """Compare, print, return the exit status; UserError for a folder without answers or with a changed file."""
    path = arguments.folder / "answers.parquet"
    if not path.is_file():
        raise UserError(f"{arguments.folder} holds no answers.parquet: publish a run that writes it")
    study = read_study(read_config())
    answers = Answers(
        pd.read_parquet(checked_file(path)), [name for name, line in study.methods.items() if not line.is_seeded]
    )
    return told(of_folder(arguments.folder, answers))


def told(found: dict[str, list[tuple[str, float, float]]]) -> int:
    """Print a line per file and one per number that differs; 1 if any does."""
    wrong = 0
    for name, numbers in found.items():
        off = [number for number in numbers if differs(*number[1:])]
        wrong += len(off)
        print(f"{name}: {len(numbers)} numbers, {len(off)} differ")
        for what, published, other in off:
            print(f"  {what} is {published!r}, computed anew {other!r}")
    print(f"{sum(map(len, found.values()))} numbers compared, {wrong} differ")
    return int(wrong > 0)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/recompute.py", description=__doc__)
    parser.add_argument("folder", type=Path, help="a published folder, or a run's with tables and figures in it")
    return parser


if __name__ == "__main__":
    with report_errors():
        sys.exit(main(parser().parse_args()))
