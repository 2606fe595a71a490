"""How often a 95 % interval holds the true difference.

`python benchmarks/coverage.py --output benchmarks/coverage.csv`, a minute.

Simulated runs of two methods whose true difference is known. An answer is the sum of what a question is worth, to a
method and to a method on one model, of what a seed is worth to a method on one model, and of noise; all normal. It is
scored as that sum, or as right where it is above zero. Compared are the standard error of the tables, the one that
holds questions only, that of one seed, and the pigeonhole bootstrap (Owen, Annals of Applied Statistics 1, 2007).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from measure import write_rows
from scipy import special

from leap_repro.cli import report_errors
from leap_repro.report.statistics import Difference, crossed_difference
from leap_repro.seeds import named_seed

TASKS, QUESTIONS = 6, 60
PIECE = 50
"""Data sets that are simulated together."""
FAR_OUT = 0.005
"""The p-value that the first of ten tests must stay below by Holm."""
MEANS = np.array([0.6, 0.3])
"""What an answer is worth on average, to the method and to the reference; deviations of its parts are about 1."""
WITHIN_QUESTION = 0.5
"""The variance of what a question is worth to a method, and as much to a method on one model; noise has 1."""


@dataclass(frozen=True)
class Case:
    """`share` of the normal estimate's variance is the seeds'; of that, `common` is the same in every model. A seed's
    deviation in the last model is `last` times that of the others. `single`: the reference ran with one seed only."""

    models: int
    sparsities: int
    share: float
    seeds: int = 3
    answers: str = "normal"
    common: float = 0.0
    last: float = 1.0
    single: bool = field(default=False, repr=False)  # the same draws as without it

    def seed_variance(self) -> float:
        """Of one method, in one model, that gives the seeds their share."""
        cells = self.models * self.seeds
        others = WITHIN_QUESTION * (1 + 1 / self.models) + 1 / (cells * self.sparsities)
        mean = (1 - self.common) / cells + self.common / self.seeds
        return self.share / (1 - self.share) * others / (TASKS * QUESTIONS) / mean

    def truth(self) -> float:
        """The difference in points that an endless run would find."""
        if self.answers == "normal":
            return 100 * float(MEANS[0] - MEANS[1])
        spread = np.sqrt(2 + 2 * WITHIN_QUESTION + self.seed_variance())
        return 100 * float(np.subtract(*special.ndtr(MEANS / spread)))

    def words(self) -> str:
        """What is special."""
        parts = [f"{100 * self.common:g} % of the seeds' part common to the models"] if self.common else []
        parts += [f"the last model's seeds spread {self.last:g} times as much"] if self.last != 1 else []
        parts += ["the reference ran with one seed"] if self.single else []
        return "; ".join(parts)


CASES = [
    *(Case(1, 1, share) for share in (0, 0.25, 0.5, 0.75)),
    Case(1, 1, 0.5, answers="right or wrong"),
    Case(1, 1, 0.5, seeds=10),
    *(Case(5, 2, share) for share in (0, 0.25, 0.5, 0.75)),
    Case(5, 2, 0.5, answers="right or wrong"),
    Case(5, 2, 0.5, last=3),
    Case(1, 1, 0.5, single=True),
    Case(5, 2, 0.5, single=True),
    Case(5, 2, 0.5, common=0.5),
]


def draw(case: Case, sets: int, rng: np.random.Generator) -> np.ndarray:
    """Differences in points [models, questions, seeds, data sets], averaged over sparsities."""
    models, seeds, questions = case.models, case.seeds, TASKS * QUESTIONS
    of_both = rng.standard_normal((1, 1, questions, 1, sets))
    deviation = np.sqrt(case.seed_variance()) * np.where(np.arange(models) == models - 1, case.last, 1)
    of_questions = rng.standard_normal((2, 1, questions, 1, sets)) + rng.standard_normal(
        (2, models, questions, 1, sets)
    )
    own, shared = (rng.standard_normal((2, count, 1, seeds, sets)) for count in (models, 1))
    of_seeds = np.sqrt(1 - case.common) * own + np.sqrt(case.common) * shared
    mean = MEANS[:, None, None, None, None] + of_both + np.sqrt(WITHIN_QUESTION) * of_questions
    mean = mean + deviation[:, None, None, None] * of_seeds
    found = np.zeros((models, questions, seeds, sets))
    for _ in range(case.sparsities):
        answers = mean + rng.standard_normal((2, models, questions, seeds, sets))
        scores = answers if case.answers == "normal" else (answers > 0).astype(float)
        other = scores[1][:, :, :1] if case.single else scores[1]
        found += 100 * (scores[0] - other) / case.sparsities
    return found


def bootstrap_error(pairs: np.ndarray) -> np.ndarray:
    """What the pigeonhole bootstrap's standard error tends to with its replicates: questions are drawn again within
    each task, the same for all models, and each model's seeds. Tasks of one size only."""
    models, questions, seeds, _ = pairs.shape
    by_task = pairs.reshape(models, TASKS, questions // TASKS, seeds, -1)
    own = by_task - by_task.mean(axis=2, keepdims=True)
    of_question = own.mean(axis=(0, 3))
    averages = pairs.mean(axis=1)
    of_seed = averages - averages.mean(axis=1, keepdims=True)
    rest = own - own.mean(axis=3, keepdims=True)
    parts = (
        (of_question**2).sum(axis=(0, 1)) / questions**2,
        (of_seed**2).sum(axis=(0, 1)) / (models * seeds) ** 2,
        (rest**2).sum(axis=(0, 1, 2, 3)) / (models * questions * seeds) ** 2,
    )
    return np.sqrt(sum(parts))


def differences(pairs: np.ndarray, single: bool) -> Iterator[Difference]:
    """By the tables' error, by that of the questions alone, and of the first seed."""
    tasks = np.repeat(np.arange(TASKS), pairs.shape[1] // TASKS)
    for kept in (pairs, pairs.mean(axis=2, keepdims=True), pairs[:, :, :1]):
        yield crossed_difference(list(kept), tasks, [1] * len(kept), [single] * len(kept))


def holds(interval: tuple[np.ndarray, np.ndarray], truth: float) -> np.ndarray:
    """For each data set, whether the truth lies within."""
    return (interval[0] <= truth) & (truth <= interval[1])


def simulate(case: Case, sets: int) -> dict[str, np.ndarray]:
    """Of each data set: the estimate, its two standard errors, and which intervals hold the truth."""
    pieces, truth = [], case.truth()
    for start in range(0, sets, PIECE):
        rng = np.random.default_rng(named_seed(f"coverage {case}", start))
        pairs = draw(case, min(PIECE, sets - start), rng)
        both, questions, first = differences(pairs, case.single)
        reach = special.ndtri(0.975) * bootstrap_error(pairs)
        intervals = {"both": both.interval, "questions": questions.interval, "first": first.interval}
        intervals["bootstrap"] = (both.value - reach, both.value + reach)
        piece = {name: holds(interval, truth) for name, interval in intervals.items()}
        piece["beyond"] = replace(both, value=both.value - truth).p_value < FAR_OUT
        pieces.append(piece | {"value": both.value, "stderr": both.stderr, "of_questions": questions.stderr})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def row(case: Case, sets: int) -> dict[str, Any]:
    """One case in points and percent."""
    found = simulate(case, sets)
    variance = found["value"].var(ddof=1)
    percent = {
        name: f"{100 * found[name].mean():.1f}" for name in ("both", "beyond", "questions", "first", "bootstrap")
    }
    return {
        "cells": case.models * case.sparsities,
        "seeds": case.seeds,
        "answers": case.answers,
        "seeds' share of the variance": f"{max(0, 1 - np.square(found['of_questions']).mean() / variance):.2f}",
        "special": case.words(),
        "true deviation": f"{np.sqrt(variance):.2f}",
        "standard error": f"{np.sqrt(np.square(found['stderr']).mean()):.2f}",
        "questions and seeds": percent["both"],
        "p below 0.005": percent["beyond"],
        "questions only": percent["questions"],
        "one seed": percent["first"],
        "bootstrap": percent["bootstrap"],
        "data sets": sets,
    }


NOTE = (
    "How often (%) the 95 % interval holds the true difference, by the tables' standard error (questions and seeds) "
    "and by three others: 95 is right, and a figure is known to half a point. p below 0.005: how often (%) the tables' "
    "p of the true difference is; 0.5 is right, known to 0.2. Ten cells: five models at two sparsities. Standard "
    "error: the tables', root mean square."
)


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/coverage.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sets", type=int, default=2000, help="simulated data sets of each case")
    parser.add_argument("--output", required=True, type=Path, help="the CSV; its Markdown is written beside it")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Simulate every case and write the table."""
    write_rows(arguments.output, [row(case, arguments.sets) for case in CASES], NOTE)


if __name__ == "__main__":
    with report_errors():
        main(parser().parse_args())
