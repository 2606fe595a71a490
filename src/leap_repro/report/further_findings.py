"""What a grid says besides accuracy: of perplexity, of the time that it takes, and of where a mask keeps weights.

As in `findings.py`, every function gives None where the grid has nothing to measure it on.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import special

from leap_repro.report.findings import (
    FAILS,
    HOLDS,
    PERCENT,
    SHARE,
    TIMES,
    CollectedTables,
    Finding,
    counted,
    verdict,
)
from leap_repro.report.layout import format_sparsity
from leap_repro.report.statistics import CONFIDENCE, student_ends

PRUNE = "prune"
"""The stage of the time table that is compared."""


def lower_perplexity(collected: CollectedTables, method: str, reference: str) -> Finding | None:
    """Of the claim that a method's perplexity is below another's: the change of their geometric mean in percent, at the
    longest window, over the models, sparsities and seeds that both have.

    The text is fixed, so the interval for these models is over seeds: the variance of each model's mean, with as many
    degrees of freedom as all models have together.
    """
    logs = _log_ratios(collected, method, reference)
    if logs.empty:
        return None
    by_seed = logs.groupby(["model", "seed"]).mean().unstack("seed")
    means, seeds = by_seed.mean(axis=1), by_seed.count(axis=1)
    mean = float(means.mean())
    of_seeds = math.sqrt(float((by_seed.var(axis=1, ddof=1) / seeds).sum(skipna=False))) / len(means)
    low, high = student_ends(mean, of_seeds, (seeds - 1).sum())
    over_models = student_ends(mean, float(means.std(ddof=1)) / math.sqrt(len(means)), len(means) - 1)
    where = ", ".join(format_sparsity(s) for s in sorted(logs.index.unique("sparsity_target")))
    counts = f"below in {(logs < 0).sum()} of {len(logs)} cells and seeds"
    measured = f"{counts}; {counted(len(means), 'model')} at {where}; {counted(int(seeds.min()), 'seed')}"
    claimed = verdict(-high, -low)
    value, low, high, lowest, highest = (100 * math.expm1(log) for log in (mean, low, high, *over_models))
    return Finding(value, low, high, PERCENT, int(seeds.min()), measured, claimed, lowest, highest)


def _log_ratios(collected: CollectedTables, method: str, reference: str) -> pd.Series:
    """The logarithms of the ratios, by model, sparsity and seed."""
    rows = collected.results
    rows = rows[(rows["task"] == "perplexity") & rows["sparsity_target"].isin(collected.shared(method, reference))]
    lengths = rows["metric"].str.split("@").str[1].astype(int)
    rows = rows[lengths == lengths.max()]
    cells = ["model", "sparsity_target", "seed"]
    ours, theirs = (rows[rows["method"] == name].set_index(cells)["value"] for name in (method, reference))
    return np.log(ours / theirs).dropna()


def cost(collected: CollectedTables, method: str, reference: str) -> Finding | None:
    """Of the claim that a method takes longer than another: the ratio of the mean times of their pruning jobs, as they
    were measured on this machine. A ratio of two measured times has no interval."""
    if collected.seconds.empty:
        return None
    jobs = collected.seconds[collected.seconds["stage"] == PRUNE].set_index("method")
    if not {method, reference} <= set(jobs.index):
        return None
    ours, theirs = (jobs.loc[name, "total"] / jobs.loc[name, "jobs"] for name in (method, reference))
    counts = " and ".join(f"{jobs.loc[name, 'jobs']:.0f}" for name in (method, reference))
    measured = f"{ours:.1f} s against {theirs:.1f} s a cell, means of {counts} jobs"
    claimed = HOLDS if ours > theirs else FAILS
    return Finding(float(ours / theirs), math.nan, math.nan, TIMES, 0, measured, claimed)


def uneven(collected: CollectedTables, method: str) -> Finding | None:
    """Of the claim that the densities which a method gives to matrices differ by more than seeds explain: the share of
    their variance that is between matrices and not between seeds, in the cell where it is smallest.

    A one-way analysis of variance of each cell, matrices by seeds: the intraclass correlation and its exact interval
    (Shrout and Fleiss, Psychological Bulletin 86, 1979, case 1). Ends of several cells as in `findings.smallest`.
    """
    tables = _densities(collected, method)
    if not tables:
        return None
    together = 1 - (1 - CONFIDENCE) / len(tables)
    found = {cell: intraclass(table, CONFIDENCE) for cell, table in tables.items()}
    cell = min(found, key=lambda each: found[each][0])
    low = min(ends[1] for ends in found.values())
    high = min(intraclass(table, together)[2] for table in tables.values())
    matrices, seeds = tables[cell].shape
    where = f"{cell[0]} at {format_sparsity(cell[1])}, the smallest of {counted(len(tables), 'cell')}"
    measured = f"{where}; {matrices} matrices, {counted(seeds, 'seed')}"
    return Finding(found[cell][0], low, high, SHARE, seeds, measured, verdict(low, high))


def _densities(collected: CollectedTables, method: str) -> dict[tuple[str, float], np.ndarray]:
    """{(model, sparsity): density [matrices, seeds]} of the cells that ran with several seeds."""
    if collected.density.empty:
        return {}
    rows = collected.density[collected.density["method"] == method]
    rows = rows[rows["sparsity_target"].isin(collected.sparsities)].assign(density=rows["kept"] / rows["numel"])
    cells = rows.groupby(["model", "sparsity_target"], sort=False)
    tables = {cell: own.pivot(index=["block", "kind"], columns="seed", values="density") for cell, own in cells}
    return {cell: table.to_numpy() for cell, table in tables.items() if table.shape[1] > 1}


def intraclass(table: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """The intraclass correlation of a table [matrices, seeds], one-way, and the ends of its interval. 1 where seeds
    change nothing."""
    count, seeds = table.shape
    between = seeds * table.mean(axis=1).var(ddof=1)
    within = table.var(axis=1, ddof=1).mean()
    if within == 0:
        return 1.0, 1.0, 1.0
    ratio, free = between / within, (count - 1, count * (seeds - 1))
    beyond = (1 - confidence) / 2
    ratios = (ratio, ratio / special.fdtri(*free, 1 - beyond), ratio * special.fdtri(*free[::-1], 1 - beyond))
    value, low, high = (float((one - 1) / (one - 1 + seeds)) for one in ratios)
    return value, low, high
