"""Means over seeds, paired differences with standard errors, Holm's p-values: the arithmetic behind the tables.

A difference between two methods is taken answer by answer: the same model, seed and question. Its standard error
covers what another run would draw anew: the questions, which all models and seeds share, and the seeds, which are drawn
for each model. The models are fixed. A second standard error covers the choice of models instead. docs/statistics.md
has the formulas and the measured coverage of the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from leap_repro.errors import UserError

QUESTION = ["task", "leaf", "index"]
CELL = ["model", "seed"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Method minus reference, in points of the six-task average; NaN where one of them is absent.

    `stderr` covers questions and seeds and is for these models; `models_stderr` covers the choice of models, as if they
    were drawn from many, and is NaN for one model. `questions` and `models` are counted; `seeds` is the fewest of a
    method and model, `most_seeds` those of the other method. If both are 1, no standard error covers seeds. In
    simulations value, errors and degrees of freedom are arrays with an entry for each data set.
    """

    value: Any
    stderr: Any
    dof: Any
    questions: int
    seeds: int
    models: int
    models_stderr: Any = math.nan
    most_seeds: int = 0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval for these models, by Student's t."""
        return self.ends(CONFIDENCE)

    @property
    def models_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval over models, by Student's t with models − 1 degrees of freedom."""
        return self.models_ends(CONFIDENCE)

    def ends(self, confidence: float) -> tuple[float, float]:
        """The two-sided interval for these models at this confidence."""
        return student_ends(self.value, self.stderr, self.dof, confidence)

    def models_ends(self, confidence: float) -> tuple[float, float]:
        """The two-sided interval over models at this confidence; NaN for one model."""
        return student_ends(self.value, self.models_stderr, max(self.models - 1, 1), confidence)

    @property
    def p_value(self) -> Any:
        """Two-sided, of no difference; 1 where there is none at all, whatever its error."""
        with np.errstate(divide="ignore", invalid="ignore"):
            beyond = 2 * special.stdtr(self.dof, -np.abs(np.divide(self.value, self.stderr)))
        found = np.where(np.equal(self.value, 0), 1.0, beyond)
        return found if found.ndim else float(found)


ABSENT = Difference(math.nan, math.nan, math.nan, 0, 0, 0)


def student_ends(value: Any, stderr: Any, dof: Any, confidence: float = CONFIDENCE) -> tuple[Any, Any]:
    """The two-sided interval of Student's t; NaN without degrees of freedom."""
    reach = special.stdtrit(dof, (1 + confidence) / 2) * stderr
    return value - reach, value + reach


@dataclass(frozen=True)
class Pairs:
    """One model's differences in `points` [questions, seeds].

    `once`: one of the two methods has a single run, which stands beside each seed of the other. Its spread over seeds
    is unknown and is taken to be the other's.
    """

    points: pd.DataFrame
    once: bool = False


def paired_difference(
    outcomes: pd.DataFrame, method: str, reference: str, unseeded: Collection[str] = ()
) -> Difference:
    """`method` minus `reference` over the models that both ran on; ABSENT if there is none.

    `outcomes` has the columns method, model, seed, task, leaf, index, correct, at one sparsity. Seeds are paired, and
    those that one of the two lacks are left out; but a single run stands beside every seed of the other method: that of
    a method among `unseeded`, which another seed would not change, and that of a method that ran with one seed only
    (`Pairs.once`). UserError if the cells answered other questions or have no seed in common.
    """
    pairs = paired(outcomes, method, reference, unseeded)
    return _difference(pairs, dict.fromkeys(pairs, 1))


def mean_over_cells(outcomes: pd.DataFrame, method: str, reference: str, unseeded: Collection[str] = ()) -> Difference:
    """The plain mean of the difference over all (model, sparsity) cells that both have; ABSENT without any.

    `outcomes` as for `paired_difference`, with a column sparsity_target. A question's and a seed's differences are
    averaged over the sparsities first: both are the same at each.
    """
    cells: dict[str, list[Pairs]] = {}
    for _, here in outcomes.groupby("sparsity_target"):
        for model, pairs in paired(here, method, reference, unseeded).items():
            cells.setdefault(model, []).append(pairs)
    means = {}
    for model, found in cells.items():
        whose = f"{method} and {reference} on {model}, at its sparsities,"
        seeds = _common([pairs.points for pairs in found], whose)
        points = sum(pairs.points[seeds] for pairs in found) / len(found)
        means[model] = Pairs(points, any(pairs.once for pairs in found))
    return _difference(means, {model: len(found) for model, found in cells.items()})


def growth(
    outcomes: pd.DataFrame, method: str, reference: str, sparsities: tuple[float, float], unseeded: Collection[str] = ()
) -> Difference:
    """How much larger the difference is at the second of two sparsities than at the first, over the models that have
    both; ABSENT without any. `outcomes` as for `mean_over_cells`. Answers are paired through: the same model, seed and
    question at either end."""
    first, second = (
        paired(outcomes[outcomes["sparsity_target"] == sparsity], method, reference, unseeded)
        for sparsity in sparsities
    )
    found = {}
    for model in (model for model in second if model in first):
        low, high = first[model], second[model]
        seeds = _common([low.points, high.points], f"{method} and {reference} on {model}, at its sparsities,")
        found[model] = Pairs(high.points[seeds] - low.points[seeds], low.once or high.once)
    return _difference(found, dict.fromkeys(found, 1))


def contrast(outcomes: pd.DataFrame, weights: Mapping[str, int]) -> Difference:
    """The methods' averages, each times its weight, added up, over the models that all of them ran on; ABSENT without
    any. `outcomes` as for `paired_difference`. Answers are paired through: the same model, seed and question of all."""
    answers, whose = {method: _answers(outcomes, method) for method in weights}, " and ".join(weights)
    models = [model for model in next(iter(answers.values())) if all(model in own for own in answers.values())]
    found = {}
    for model in models:
        own = {method: of_model[model] for method, of_model in answers.items()}
        seeds = _common([*own.values()], f"{whose} on {model}")
        points: Any = 100 * sum(weight * own[method][seeds] for method, weight in weights.items())
        found[model] = Pairs(points)
    _require_same_questions(found, whose)
    return _difference(found, dict.fromkeys(found, 1))


def paired(outcomes: pd.DataFrame, method: str, reference: str, unseeded: Collection[str] = ()) -> dict[str, Pairs]:
    """{model: the differences} of the models that both methods ran on, seeds paired as in `paired_difference`."""
    ours, theirs = _answers(outcomes, method), _answers(outcomes, reference)
    models = [model for model in ours if model in theirs]
    found = {}
    for model in models:
        mine, other = ours[model], theirs[model]
        single = _is_single(method, mine, other, unseeded), _is_single(reference, other, mine, unseeded)
        if single[0]:
            mine = pd.DataFrame({seed: mine.iloc[:, 0] for seed in other})
        elif single[1]:
            other = pd.DataFrame({seed: other.iloc[:, 0] for seed in mine})
        seeds = _common([mine, other], f"{method} and {reference} on {model}")
        once = any(single) and not {method, reference} & set(unseeded)
        found[model] = Pairs(100 * (mine[seeds] - other[seeds]), once)
    _require_same_questions(found, f"{method} and {reference}")
    return found


def _require_same_questions(pairs: Mapping[str, Pairs], whose: str) -> None:
    every = [of_model.points for of_model in pairs.values()]
    if any(not points.index.equals(every[0].index) or points.isna().any(axis=None) for points in every):
        raise UserError(f"{whose} did not answer the same questions in every cell; evaluate them again")


def _is_single(name: str, own: pd.DataFrame, other: pd.DataFrame, unseeded: Collection[str]) -> bool:
    """Whether a method's only run stands beside every seed of the other."""
    return name in unseeded or len(own.columns) == 1 < len(other.columns)


def _answers(outcomes: pd.DataFrame, method: str) -> dict[str, pd.DataFrame]:
    """{model: right or wrong, [questions, seeds]}."""
    own = outcomes[outcomes["method"] == method]
    return {
        model: here.pivot(index=QUESTION, columns="seed", values="correct").astype(float)
        for model, here in own.groupby("model", sort=False)
    }


def _common(frames: Sequence[pd.DataFrame], whose: str) -> list[int]:
    seeds = [seed for seed in frames[0] if all(seed in frame for frame in frames)]
    if not seeds:
        have = " and ".join(", ".join(str(seed) for seed in frame) for frame in frames)
        raise UserError(f"{whose} have no seed in common: {have}; run both with the same seeds")
    return seeds


def _difference(pairs: dict[str, Pairs], weights: dict[str, int]) -> Difference:
    if not pairs:
        return ABSENT
    tasks = next(iter(pairs.values())).points.index.get_level_values("task").to_numpy()
    arrays = [found.points.to_numpy()[:, :, None] for found in pairs.values()]
    once = [found.once for found in pairs.values()]
    found = crossed_difference(arrays, tasks, list(weights.values()), once)
    numbers = (found.value, found.stderr, found.dof)
    value, stderr, dof = (float(np.asarray(number)[0]) for number in numbers)
    over_models = float(found.models_stderr[0]) if len(pairs) > 1 else math.nan
    return replace(found, value=value, stderr=stderr, dof=dof, models_stderr=over_models)


def crossed_difference(
    pairs: Sequence[np.ndarray], tasks: np.ndarray, weights: Sequence[int], once: Sequence[bool] = ()
) -> Difference:
    """The weighted mean over models of their average over tasks, for many data sets at once.

    `pairs` holds for each model its differences [questions, seeds, data sets]; questions are the same in all, and
    `tasks` [questions] says of which task; seeds may differ in number. `once` says for each model whether one of the
    two methods has a single run (`Pairs.once`). The variance is the questions' plus the seeds' minus their intersection
    (Cameron, Gelbach and Miller, J. Business & Economic Statistics 29, 2011, section 2; the intersection is of what
    neither questions nor seeds explain), and never less than the larger of the two.
    """
    once, total = once or [False] * len(pairs), sum(weights)
    counts = [of_model.shape[1] for of_model in pairs]
    mean: Any = sum(weight * of_model.mean(axis=1) for weight, of_model in zip(weights, pairs, strict=True)) / total
    value, variance, doubt = _average(mean, tasks)
    if min(counts) > 1:
        runs = [1 / count + single for count, single in zip(counts, once, strict=True)]
        shares = [(weight / total) ** 2 * run for weight, run in zip(weights, runs, strict=True)]
        variance, doubt = _with_seeds(variance, doubt, pairs, tasks, shares)
    with np.errstate(divide="ignore", invalid="ignore"):
        dof = np.where(variance > 0, variance**2 / doubt, len(tasks) - len(set(tasks)))
    seeds = min(1 if single else count for count, single in zip(counts, once, strict=True))
    over_models = _models_error(np.stack([_average(p.mean(axis=1), tasks)[0] for p in pairs]), value, weights)
    return Difference(value, np.sqrt(variance), dof, len(tasks), seeds, len(pairs), over_models, min(counts))


def _models_error(of_models: np.ndarray, mean: np.ndarray, weights: Sequence[int]) -> np.ndarray:
    """The standard error of a weighted mean of models [models, data sets], drawn independently with one variance; NaN
    for one model. With equal weights it is the standard deviation over models by the root of their number."""
    shares = np.array(weights)[:, None] / sum(weights)
    squared = (shares**2).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (shares * (of_models - mean) ** 2).sum(axis=0) / (1 - squared)
    return np.sqrt(spread * squared) if len(weights) > 1 else np.full_like(mean, math.nan)


def _average(values: np.ndarray, tasks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the columns of `values` [questions, columns]: the mean of the task means, its variance over questions, and the
    doubt in that: the sum of squares of its parts, each by its degrees of freedom, of which Satterthwaite's are made.
    NaN where a task has one question."""
    by_task = pd.DataFrame(values).groupby(tasks)
    sizes = by_task.size()
    parts = by_task.var(ddof=1).div(sizes, axis=0)
    variance = parts.sum(skipna=False) / by_task.ngroups**2
    doubt = parts.pow(2).div(sizes - 1, axis=0).sum() / by_task.ngroups**4
    return by_task.mean().mean().to_numpy(), variance.to_numpy(), doubt.to_numpy()


def _with_seeds(
    questions: np.ndarray, doubt: np.ndarray, pairs: Sequence[np.ndarray], tasks: np.ndarray, shares: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """(variance, doubt) of questions and seeds, from those of the questions. `shares`: what a model's variance over
    seeds counts for, its weight squared by its runs."""
    seeds, both, parts = 0, 0, []
    for share, of_model in zip(shares, pairs, strict=True):
        spread, rest = _seed_parts(of_model, tasks)
        seeds, both = seeds + share * spread, both + share * rest
        parts.append((share, of_model.shape[1] - 1))
    variance = np.maximum(questions + seeds - both, np.maximum(questions, seeds))
    # Models are taken to have one spread over seeds, so theirs add up: two each with three seeds, ten with five models.
    dof = sum(part for part, _ in parts) ** 2 / sum(part**2 / free for part, free in parts)
    # What is subtracted is known too well to add to the doubt: it has thousands.
    return variance, doubt + seeds**2 / dof


def _seed_parts(of_model: np.ndarray, tasks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one model's average, per seed: its variance over seeds, and how much of that neither seeds nor questions
    explain (the interaction of a two-way analysis of variance within tasks)."""
    count, sets = of_model.shape[1:]
    averages, _, _ = _average(of_model.reshape(len(tasks), -1), tasks)
    residual = of_model - of_model.mean(axis=1, keepdims=True)
    _, rest, _ = _average(residual.reshape(len(tasks), -1), tasks)
    return averages.reshape(count, sets).var(axis=0, ddof=1), rest.reshape(count, sets).sum(axis=0) / (count - 1)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values that hold for all of a family together (Holm, Scandinavian J. Statistics 6, 1979), in the order given.

    Reject where the adjusted value is at most α: the chance of one false rejection or more is at most α, however the
    tests depend on each other. NaN is no test: it stays, and is not counted.
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")[: np.count_nonzero(~np.isnan(values))]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(values), math.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Results with seeds averaged: the means, and `sd` of the value over seeds (NaN for one seed)."""
    keys = ["model", "method", "sparsity_target", "task", "metric"]
    grouped = results.groupby(keys, sort=False)
    return grouped.agg(
        value=("value", "mean"),
        sd=("value", "std"),
        seeds=("seed", "nunique"),
        sparsity_actual=("sparsity_actual", "mean"),
    ).reset_index()
