"""Means over seeds, paired differences with standard errors: the arithmetic behind the tables.

A difference between two methods is taken question by question, because both answered the same questions; its standard
error is that of the mean of those differences. Over several models the questions are the same too, so a question's
differences are averaged over models first and the error is taken over questions.
"""

from __future__ import annotations

import math

import pandas as pd

QUESTION = ["task", "leaf", "index"]
ANSWER = ["model", "seed", *QUESTION]


def paired_difference(outcomes: pd.DataFrame, method: str, reference: str) -> tuple[float, float]:
    """(difference in points, standard error) of the six-task average, `method` minus `reference`.

    `outcomes` has the columns method, model, seed, task, leaf, index, correct; any number of models and seeds, one
    sparsity. Only answers that both methods gave count. Returns (nan, nan) if either method is absent.
    """
    ours, theirs = (outcomes[outcomes["method"] == name] for name in (method, reference))
    if ours.empty or theirs.empty:
        return math.nan, math.nan
    pairs = ours.merge(theirs, on=ANSWER, suffixes=("", "_reference"))
    pairs["difference"] = 100 * (pairs["correct"] - pairs["correct_reference"])
    by_task = pairs.groupby(QUESTION)["difference"].mean().groupby("task")
    mean = by_task.mean().mean()
    variance = (by_task.var(ddof=1) / by_task.size()).sum() / by_task.ngroups**2
    return float(mean), float(math.sqrt(variance))


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
