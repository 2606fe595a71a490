"""What a grid with seeds says of one question: an estimate with its interval, and a verdict that follows from both.

A claim that something is above a bound holds if the whole 95 % interval is, does not hold if the whole interval is
below, and is undecided here otherwise. That interval is for these models; the one over models stands beside it. Every
function gives None where the grid has nothing to measure it on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import special

from leap_repro.report.correlations import BY_SEED, correlate_runs, last_probes, lines_of, of_several, probes_of
from leap_repro.report.differences import cell_differences
from leap_repro.report.layout import Methods, format_sparsity, label_of, unseeded
from leap_repro.report.statistics import CONFIDENCE, Difference, growth, holm, mean_over_cells

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided here"
ALPHA = 1 - CONFIDENCE
POINTS, COEFFICIENT, NATS, CELLS = "points", "Pearson's r", "nats per token", "cells"
PERCENT, TIMES, SHARE = "percent", "times", "of the variance"
EQUAL = 0.01
"""Nats per token that count as nothing: a hundredth of the perplexity."""


@dataclass(frozen=True)
class Finding:
    """`value` in `unit` with its 95 % interval for these models, NaN where there is none; `measured`: on what;
    `verdict`: one of HOLDS, FAILS, UNDECIDED, by that interval. `seeds`: the fewest of a method. `low_over_models` and
    `high_over_models`: the 95 % interval as if the models were drawn from many, NaN where there is none.
    """

    value: float
    low: float
    high: float
    unit: str
    seeds: int
    measured: str
    verdict: str
    low_over_models: float = math.nan
    high_over_models: float = math.nan


@dataclass(frozen=True)
class CollectedTables:
    """A grid's collected tables; `sparsities` are those at which every seed ran: findings look at no others. `density`
    has the kept weights by matrix, `seconds` the time table's rows; either may be empty."""

    results: pd.DataFrame
    outcomes: pd.DataFrame
    training: pd.DataFrame
    methods: Methods
    sparsities: tuple[float, ...]
    density: pd.DataFrame = field(default_factory=pd.DataFrame)
    seconds: pd.DataFrame = field(default_factory=pd.DataFrame)

    @cached_property
    def cells(self) -> dict[str, set[tuple[str, float]]]:
        """{method: the (model, sparsity) at which it ran}."""
        ran = self.outcomes.groupby("method")[["model", "sparsity_target"]]
        return {name: set(own.drop_duplicates().itertuples(index=False, name=None)) for name, own in ran}

    def shared(self, *names: str, highest: bool = False) -> tuple[float, ...]:
        """Those of `sparsities` at which all these methods ran on one model at least, or the highest of them."""
        common = set.intersection(*(self.cells.get(name, set()) for name in names))
        common = {sparsity for _, sparsity in common} & set(self.sparsities)
        return tuple(sorted(common))[-1 if highest else 0 :]

    def at(self, sparsities: Collection[float]) -> pd.DataFrame:
        """The answers at these sparsities."""
        return self.outcomes[self.outcomes["sparsity_target"].isin(sparsities)]

    def difference(self, method: str, reference: str, sparsities: Collection[float]) -> Difference:
        """`method` minus `reference`, averaged over the cells of these sparsities."""
        return mean_over_cells(self.at(sparsities), method, reference, unseeded(self.methods))

    def trained(self, methods: Methods) -> pd.DataFrame:
        """One row per training with held-out evaluations, with the last of them and its accuracy."""
        probes = self.training[
            self.training["method"].isin(methods) & self.training["sparsity_target"].isin(self.sparsities)
        ]
        known = "held_out_topk" in probes and probes["held_out_topk"].notna().any()
        return last_probes(probes_of(probes, methods), self.results) if known else pd.DataFrame()


def verdict(low: float, high: float, bound: float = 0.0) -> str:
    """Of the claim that something is above `bound`."""
    return HOLDS if low > bound else FAILS if high < bound else UNDECIDED


def counted(number: int, what: str) -> str:
    """ "one model", "2 models"."""
    return f"one {what}" if number == 1 else f"{number} {what}s"


def placed(found: Difference, sparsities: Collection[float]) -> str:
    """What a difference was measured on."""
    where = ", ".join(format_sparsity(sparsity) for sparsity in sparsities)
    beside = f" beside {found.most_seeds}" if found.most_seeds > found.seeds else ""
    return f"{counted(found.models, 'model')} at {where}; {counted(found.seeds, 'seed')}{beside}"


def of_difference(found: Difference, measured: str) -> Finding:
    """Of the claim that a difference is above 0."""
    low, high = found.interval
    over_models = found.models_interval
    return Finding(found.value, low, high, POINTS, found.seeds, measured, verdict(low, high), *over_models)


def lead(collected: CollectedTables, method: str, reference: str, highest: bool = False) -> Finding | None:
    """Of the claim that a method is above another, averaged over the cells that both have, or over those at the highest
    sparsity that both have."""
    sparsities = collected.shared(method, reference, highest=highest)
    if not sparsities:
        return None
    found = collected.difference(method, reference, sparsities)
    return of_difference(found, placed(found, sparsities))


def smallest(leads: Sequence[Difference], over_models: bool = False) -> tuple[float, float, float]:
    """The smallest of several differences, with a 95 % interval for the smallest of the true ones, for these models or
    over models.

    Below its lower end is the truth only if it is below that of the one which truly is the smallest, so the least of
    the single lower ends will do. The truth is above the upper end if any is above its own, so these hold together
    (Bonferroni): one bad estimate among many is no proof that a claim about all is wrong.
    """
    together = 1 - (1 - CONFIDENCE) / len(leads)
    ends = [one.models_ends if over_models else one.ends for one in leads]
    low, high = min(of(CONFIDENCE)[0] for of in ends), min(of(together)[1] for of in ends)
    return min(one.value for one in leads), low, high


def of_smallest(leads: Sequence[Difference], seeds: int, measured: str) -> Finding:
    """Of the claim that all of several differences are above 0."""
    value, low, high = smallest(leads)
    over_models = smallest(leads, over_models=True)[1:]
    return Finding(value, low, high, POINTS, seeds, measured, verdict(low, high), *over_models)


def weakest(collected: CollectedTables, pairs: Sequence[tuple[str, str]], highest: bool = False) -> Finding | None:
    """Of the claim that the first of every pair is above the second: the smallest of these leads. None where one of
    them did not run: the claim is about all."""
    sparsities = collected.shared(*{name for pair in pairs for name in pair}, highest=highest) if pairs else ()
    if not sparsities:
        return None
    leads = {pair: collected.difference(*pair, sparsities) for pair in pairs}
    pair, least = min(leads.items(), key=lambda item: item[1].value)
    labels = " − ".join(label_of(name, collected.methods) for name in pair)
    measured = f"{labels}, the smallest of {len(leads)}; {placed(least, sparsities)}"
    return of_smallest([*leads.values()], min(one.seeds for one in leads.values()), measured)


def cells_above(collected: CollectedTables, method: str, reference: str) -> Finding | None:
    """Of the claim that the method leads in every cell: the number of cells in which it does; the ends are those in
    which it surely does, and those in which it is not surely behind (Holm's correction)."""
    sparsities = collected.shared(method, reference)
    if not sparsities:
        return None
    both = collected.at(sparsities)
    both = both[both["method"].isin([method, reference])]
    cells = cell_differences(both, method, reference, unseeded(collected.methods)).values()
    sure = holm([cell.p_value for cell in cells]) < ALPHA
    values = np.array([cell.value for cell in cells])
    ahead, behind = int((sure & (values > 0)).sum()), int((sure & (values < 0)).sum())
    found = HOLDS if ahead == len(cells) else FAILS if behind else UNDECIDED
    seeds = min(cell.seeds for cell in cells)
    measured = f"{counted(len(cells), 'cell')}; {counted(seeds, 'seed')}; surely ahead in {ahead}, behind in {behind}"
    return Finding(int((values > 0).sum()), ahead, len(cells) - behind, CELLS, seeds, measured, found)


def grows(collected: CollectedTables, method: str, reference: str) -> Finding | None:
    """Of the claim that the lead is larger at the highest sparsity than at the lowest: the difference of the two."""
    sparsities = collected.shared(method, reference)
    if len(sparsities) < 2:
        return None
    ends = (sparsities[0], sparsities[-1])
    found = growth(collected.outcomes, method, reference, ends, unseeded(collected.methods))
    if not found.models:
        return None
    where = f"{format_sparsity(ends[1])} against {format_sparsity(ends[0])}"
    return of_difference(found, f"{counted(found.models, 'model')}, {where}; {counted(found.seeds, 'seed')}")


def of_every_seed(collected: CollectedTables, method: str, reference: str) -> Finding | None:
    """Of the claim that the lead, averaged over the cells, is there with each seed that ran: the smallest of them. Its
    interval holds questions only: the seeds are these."""
    sparsities = collected.shared(method, reference)
    here, without = collected.at(sparsities), unseeded(collected.methods)
    ran = [set(here.loc[here["method"] == name, "seed"]) for name in (method, reference) if name not in without]
    seeds = sorted(set.intersection(*ran)) if ran else []
    if len(seeds) < 2:
        return None
    leads = {}
    for seed in seeds:
        rows = here[(here["seed"] == seed) | here["method"].isin(without)]
        leads[seed] = mean_over_cells(rows, method, reference, without)
    least = min(leads, key=lambda seed: leads[seed].value)
    measured = f"seed {least}, the smallest of {len(seeds)}; {placed(leads[least], sparsities).split(';')[0]}"
    return of_smallest([*leads.values()], len(seeds), measured)


def foretells(collected: CollectedTables, relaxed: str, outcome: str) -> Finding | None:
    """Of the claim that a lower `relaxed` loss of a training goes with less hardened loss ("held_out_topk"), or with
    more accuracy ("accuracy"): deviations within model, sparsity and seed, over lines.

    Trainings of one line, which differ in the seed alone, are no independent pairs: the interval counts each line once.
    """
    known = collected.trained(collected.methods)
    runs = of_several(known.dropna(subset=[relaxed, outcome]), BY_SEED) if len(known) else known
    if runs.empty:
        return None
    found = correlate_runs(runs, relaxed, outcome, BY_SEED)
    low, high = found.pearson_low, found.pearson_high
    claimed = verdict(-high, -low) if outcome == "accuracy" else verdict(low, high)
    groups = runs.groupby(BY_SEED).ngroups
    measured = f"{len(runs)} trainings, of {lines_of(runs)} methods in {counted(groups, 'cell')} and seeds"
    return Finding(found.pearson, low, high, COEFFICIENT, runs["seed"].nunique(), measured, claimed)


def rounding_gap(collected: CollectedTables, method: str) -> Finding | None:
    """Of the claim that hardening changes nothing at the end of a training: relaxed minus exactly hardened loss, the
    mean over trainings, within EQUAL of 0."""
    runs = collected.trained({method: {}})
    if runs.empty:
        return None
    gaps = (runs["held_out_relaxed"] - runs["held_out_topk"]).to_numpy(dtype=float)
    mean, low, high = float(gaps.mean()), math.nan, math.nan
    if len(gaps) > 1:
        reach = special.stdtrit(len(gaps) - 1, (1 + CONFIDENCE) / 2) * gaps.std(ddof=1) / math.sqrt(len(gaps))
        low, high = float(mean - reach), float(mean + reach)
    found = HOLDS if low > -EQUAL and high < EQUAL else FAILS if low > EQUAL or high < -EQUAL else UNDECIDED
    most = f"{gaps.min():+.3f} to {gaps.max():+.3f}".replace("-", "−")
    measured = f"relaxed − hardened, {counted(len(gaps), 'training')}, from {most}"
    return Finding(mean, low, high, NATS, runs["seed"].nunique(), measured, found)
