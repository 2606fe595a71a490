"""What a grid with seeds says of one question: an estimate with its interval, and a verdict that follows from both.

A claim that something is above a bound holds if the whole 95 % interval is, does not hold if the whole interval is
below, and is undecided here otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from leap_repro.aggregate.differences import Cells, cell_differences
from leap_repro.aggregate.layout import Methods, format_sparsity, unseeded
from leap_repro.aggregate.rounding import RELAXED, Correlation, correlate, last_probes, probes_of
from leap_repro.aggregate.statistics import QUESTION, Difference, holm, mean_over_cells, paired_difference

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided here"
ALPHA = 0.05
POINTS, COEFFICIENT, NATS, CELLS = "points", "Spearman's ρ", "nats per token", "cells"
EQUAL = 0.01
"""Nats per token that count as nothing: a hundredth of the perplexity."""


@dataclass(frozen=True)
class Finding:
    """`value` in `unit` with its 95 % interval; `measured`: on what; `verdict`: one of HOLDS, FAILS, UNDECIDED."""

    value: float
    low: float
    high: float
    unit: str
    measured: str
    verdict: str


@dataclass(frozen=True)
class Evidence:
    """A grid's collected tables; `sparsities` are those at which every seed ran."""

    results: pd.DataFrame
    outcomes: pd.DataFrame
    training: pd.DataFrame
    methods: Methods
    sparsities: tuple[float, ...]

    def has(self, *names: str) -> bool:
        """Whether all these methods ran."""
        return set(names) <= set(self.outcomes["method"].unique())

    def at(self, sparsity: float | None = None) -> pd.DataFrame:
        """The answers at one sparsity, or at all of `sparsities`."""
        wanted = self.sparsities if sparsity is None else (sparsity,)
        return self.outcomes[self.outcomes["sparsity_target"].isin(wanted)]

    @property
    def highest(self) -> float:
        return max(self.sparsities)


def verdict(low: float, high: float, bound: float = 0.0) -> str:
    """Of the claim that something is above `bound`."""
    return HOLDS if low > bound else FAILS if high < bound else UNDECIDED


def of_difference(found: Difference, where: str) -> Finding:
    """Of the claim that a difference is above 0."""
    low, high = found.interval
    seeds = f"{found.seeds} seeds" if found.seeds > 1 else "one seed: no seeds in the interval"
    models = f"{found.models} models" if found.models > 1 else "one model"
    measured = f"{models}, {where}, {seeds}, {found.questions:,} questions"
    return Finding(found.value, low, high, POINTS, measured, verdict(low, high))


def lead(evidence: Evidence, method: str, reference: str, sparsity: float | None = None) -> Finding:
    """`method` minus `reference` at one sparsity, or averaged over the cells of all."""
    here, without = evidence.at(sparsity), unseeded(evidence.methods)
    where = " and ".join(format_sparsity(s) for s in ([sparsity] if sparsity is not None else evidence.sparsities))
    difference = mean_over_cells if sparsity is None else paired_difference
    return of_difference(difference(here, method, reference, without), where)


def weakest(evidence: Evidence, pairs: Sequence[tuple[str, str]], sparsity: float | None = None) -> Finding:
    """Of the claim that every one of these leads is above 0: the one whose interval reaches lowest."""
    found = {pair: lead(evidence, *pair, sparsity) for pair in pairs}
    (method, reference), least = min(found.items(), key=lambda item: item[1].low)
    labels = (evidence.methods[name]["label"] for name in (method, reference))
    verdicts = {finding.verdict for finding in found.values()}
    whole = FAILS if FAILS in verdicts else UNDECIDED if UNDECIDED in verdicts else HOLDS
    measured = f"the least of {len(found)}, {' − '.join(labels)}: {least.measured}"
    return Finding(least.value, least.low, least.high, POINTS, measured, whole)


def cells_above(evidence: Evidence, method: str, reference: str) -> Finding:
    """Of the claim that the method leads in every cell: the number of cells in which it does, and between which numbers
    that is sure after Holm's correction."""
    both = evidence.at()[evidence.at()["method"].isin([method, reference])]
    cells: Cells = cell_differences(both, method, reference, unseeded(evidence.methods))
    adjusted = holm([cell.p_value for cell in cells.values()])
    values = np.array([cell.value for cell in cells.values()])
    sure_above, sure_below = (int(((sign * values > 0) & (adjusted < ALPHA)).sum()) for sign in (1, -1))
    all_above = HOLDS if sure_above == len(cells) else FAILS if sure_below else UNDECIDED
    seeds = min(cell.seeds for cell in cells.values())
    measured = f"{len(cells)} cells, {seeds} seeds; the interval: surely above, not surely below (Holm, 5 %)"
    return Finding(int((values > 0).sum()), sure_above, len(cells) - sure_below, CELLS, measured, all_above)


def growth(evidence: Evidence, method: str, reference: str) -> Finding:
    """Of the claim that the lead is larger at the highest sparsity than at the lowest: the difference of the two."""
    both = evidence.at()[evidence.at()["method"].isin([method, reference])]
    signed = both.assign(correct=both["correct"].astype(float).where(both["method"] == method, -both["correct"]))
    ends = {"low": min(evidence.sparsities), "high": evidence.highest}
    leads = [
        signed[signed["sparsity_target"] == sparsity]
        .groupby(["model", "seed", *QUESTION], as_index=False)["correct"]
        .sum()
        .assign(method=name)
        for name, sparsity in ends.items()
    ]
    where = f"{format_sparsity(ends['high'])} against {format_sparsity(ends['low'])}"
    return of_difference(paired_difference(pd.concat(leads), "high", "low"), where)


def of_every_seed(evidence: Evidence, method: str, reference: str) -> Finding:
    """Of the claim that the lead, averaged over the cells, is there with every seed: the smallest of the seeds'."""
    here = evidence.at()
    leads = {
        seed: mean_over_cells(rows, method, reference)
        for seed, rows in here[here["method"] == method].groupby("seed")
        for rows in [here[here["seed"] == seed]]
    }
    seed, least = min(leads.items(), key=lambda item: item[1].value)
    found = of_difference(least, f"seed {seed}, the least of {len(leads)}")
    verdicts = [verdict(*one.interval) for one in leads.values()]
    whole = HOLDS if set(verdicts) == {HOLDS} else FAILS if FAILS in verdicts else UNDECIDED
    return Finding(found.value, found.low, found.high, POINTS, found.measured.split(", one seed")[0], whole)


def foretells(evidence: Evidence, outcome: str) -> Finding:
    """Of the claim that a lower relaxed loss at a training's end goes with less hardened loss ("held_out_topk"), or
    with more accuracy ("accuracy"): within model and sparsity, over seeds and schedules."""
    runs = last_probes(probes_of(evidence.training, evidence.methods), evidence.results)
    groups = runs.groupby(["model", "sparsity_target"])
    runs = runs[groups["seed"].transform("size") > 1]
    sign = -1 if outcome == "accuracy" else 1
    within = runs.groupby(["model", "sparsity_target"]).ngroup()
    found: Correlation = correlate(runs[next(iter(RELAXED))], sign * runs[outcome], within)
    measured = f"{len(runs)} trainings within {within.nunique()} pairs of model and sparsity"
    ends = (found.spearman_low, found.spearman_high)
    return Finding(found.spearman, *ends, COEFFICIENT, measured, verdict(*ends))


def rounding_gap(evidence: Evidence, method: str) -> Finding:
    """Of the claim that hardening costs nothing at the end of a training: relaxed minus exactly hardened loss, within
    EQUAL of 0."""
    runs = last_probes(probes_of(evidence.training, {method: {}}), evidence.results)
    gaps = (runs["held_out_relaxed"] - runs["held_out_topk"]).to_numpy()
    reach = float(special.stdtrit(len(gaps) - 1, 0.975)) * gaps.std(ddof=1) / math.sqrt(len(gaps))
    low, high = gaps.mean() - reach, gaps.mean() + reach
    equal = HOLDS if low > -EQUAL and high < EQUAL else FAILS if low > EQUAL or high < -EQUAL else UNDECIDED
    measured = f"{len(gaps)} trainings, last step; within ±{EQUAL} counts as nothing"
    return Finding(float(gaps.mean()), float(low), float(high), NATS, measured, equal)
