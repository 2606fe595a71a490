"""The paper's claims, its readers' questions and our own, each with what was measured and what follows:
`python -m leap_repro.report.claims`. docs/claims.md shows the table.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from leap_repro.cli import run_stage
from leap_repro.report.collect import DENSITY, TRAINING, read_models
from leap_repro.report.command import read, table_parser
from leap_repro.report.correlations import EARLY
from leap_repro.report.findings import (
    CELLS,
    COEFFICIENT,
    EQUAL,
    NATS,
    PERCENT,
    POINTS,
    SHARE,
    TIMES,
    UNDECIDED,
    CollectedTables,
    Finding,
    cells_above,
    foretells,
    grows,
    lead,
    of_every_seed,
    rounding_gap,
    verdict,
    weakest,
)
from leap_repro.report.further_findings import cost, lower_perplexity, uneven
from leap_repro.report.layout import LEAP, REFERENCE, Methods, called
from leap_repro.report.published import published_differences, signed
from leap_repro.report.render import Table
from leap_repro.report.statistics import QUESTION
from leap_repro.store.sums import checked_file

log = logging.getLogger(__name__)
PAPER, READERS, OURS = "paper", "readers", "ours"
"""Whose claim it is: the paper's; an answer to its readers (docs/fidelity.md); our own."""
LAYERWISE = ("magnitude", "wanda", "sparsegpt", "thanos", "optima")
RIVALS = {"ria": "RIA", "dsnot": "DSnoT", "owl": "OWL", "alps": "ALPS"}
COLUMNS = ["claim", "whose", "verdict", "value", "low", "high", "low_over_models", "high_over_models"]
COLUMNS += ["unit", "seeds", "measured", "table", "method", "reference"]


@dataclass(frozen=True)
class Claim:
    """`says` in words; `measure` gives None where the grid lacks what it is about; `table` shows more of it."""

    whose: str
    says: str
    table: str
    measure: Callable[[CollectedTables], Finding | None]


def of_paper(leap: str, admm: str, methods: Methods) -> Iterator[Claim]:
    """What the paper says."""
    pair = {"method": leap, "reference": admm}
    theirs = published_differences("LEAP")
    mean = f"LEAP is above ADMM on the mean of all cells (published: {signed(sum(theirs.values()) / len(theirs))})"
    yield Claim(PAPER, mean, "differences", partial(lead, **pair))
    yield Claim(PAPER, "LEAP is above ADMM in every cell", "differences", partial(cells_above, **pair))
    larger = "LEAP's lead over ADMM is larger at the highest sparsity than at the lowest"
    yield Claim(PAPER, larger, "differences", partial(grows, **pair))
    others = [(admm, name) for module in LAYERWISE if (name := called(module, methods))]
    best = "ADMM is above the paper's other layer-wise methods, on the mean of all cells"
    yield Claim(PAPER, best, "main", partial(weakest, pairs=others))
    maskllm = called("maskllm", methods) or "maskllm"
    at_same = "LEAP is above MaskLLM's 2:4 masks at the same sparsity"
    yield Claim(PAPER, at_same, "main", partial(lead, method=leap, reference=maskllm))
    below = "LEAP's perplexity is below ADMM's, on the mean of all cells"
    yield Claim(PAPER, below, "main", partial(lower_perplexity, **pair))
    uneven_words = "LEAP's densities differ between matrices by more than between seeds"
    yield Claim(PAPER, uneven_words, "density (figure)", partial(uneven, method=leap))


def of_readers(leap: str, admm: str, annealed: list[str]) -> Iterator[Claim]:
    """Claims that answer the paper's readers: seeds, the hardened model, the effect of annealing."""
    each = "LEAP is above ADMM on the mean of all cells with each seed"
    yield Claim(READERS, each, "differences", partial(of_every_seed, method=leap, reference=admm))
    early = "A lower relaxed loss after a quarter of a training means a lower hardened one (r above 0)"
    yield Claim(READERS, early, "correlations", partial(foretells, relaxed=EARLY, outcome="held_out_topk"))
    accurate = "A lower relaxed loss at a training's end means more zero-shot accuracy (r below 0)"
    at_end = partial(foretells, relaxed="held_out_relaxed", outcome="accuracy")
    yield Claim(READERS, accurate, "correlations", at_end)
    same = f"At the end of LEAP's training, hardening changes the mean loss by less than {EQUAL}"
    yield Claim(READERS, same, "gap", partial(rounding_gap, method=leap))
    for says, pairs in (
        ("LEAP is above ADMM under every other annealing schedule", [(name, admm) for name in annealed]),
        ("The paper's annealing schedule is better than every other one", [(leap, name) for name in annealed]),
    ):
        yield Claim(READERS, says, "annealing", partial(weakest, pairs=pairs, highest=True))


def of_ours(leap: str, admm: str) -> Iterator[Claim]:
    """What wins: mask, allocation or reconstruction; and against whom."""
    for method, reference, says in (
        (leap, "wanda+leap-budget", "Mask: LEAP is above Wanda with the same budget for each matrix"),
        (leap, "admm+leap-budget", "Mask: LEAP is above ADMM, values included, with the same budget for each matrix"),
        (leap, "leap-layer", "Allocation: LEAP is better with one budget for the model than with one for each matrix"),
        ("admm+leap-budget", admm, "Allocation: LEAP's budget for each matrix makes ADMM better"),
        ("magnitude+leap-budget", "magnitude", "Allocation: LEAP's budget for each matrix makes magnitude better"),
        ("owl", "wanda", "Allocation: OWL's budgets, by outliers, make Wanda better"),
        ("admm+owl-budget", admm, "Allocation: OWL's budgets, by outliers, make ADMM better"),
        ("leap+optima", leap, "Reconstruction: OPTIMA's values make LEAP's mask better"),
        (
            "leap+optima",
            "admm+leap-budget",
            "Mask: LEAP's with layer-wise values is above ADMM with the same budget for each matrix",
        ),
    ):
        yield Claim(OURS, says, "crossings", partial(lead, method=method, reference=reference, highest=True))


def of_rivals(leap: str, admm: str, methods: Methods) -> Iterator[Claim]:
    """LEAP beside methods that are not in the paper, those that train weights by themselves, and what it costs."""
    every = [called(module, methods) for module in (*LAYERWISE, *RIVALS)]
    pairs = [(leap, name) for name in (admm, *every) if name]
    layerwise = "LEAP is above every layer-wise method, ALPS included, on the mean of all cells"
    if called("alps", methods):
        yield Claim(OURS, layerwise, "main", partial(weakest, pairs=pairs))
    for rival, name in RIVALS.items():
        says = f"LEAP is above {name}, on the mean of all cells"
        yield Claim(OURS, says, "main", partial(lead, method=leap, reference=rival))
    for trained, what in (
        ("elsa", "ELSA, which trains the weights on as many tokens"),
        ("wanda+recover", "Wanda's mask with its weights trained on as many tokens"),
        ("admm+recover", "ADMM's mask with its weights trained on as many tokens"),
    ):
        yield Claim(OURS, f"LEAP is above {what}", "crossings", partial(lead, method=leap, reference=trained))
    for method, reference, says in (
        (leap, "admm+leap-tokens", "LEAP is above ADMM calibrated on LEAP's tokens"),
        (leap, "alps+leap-tokens", "LEAP is above ALPS calibrated on LEAP's tokens"),
        (
            "leap-half-tokens+recover",
            "elsa",
            "LEAP on half of the tokens and recovery on the other half are above ELSA",
        ),
    ):
        yield Claim(OURS, says, "crossings", partial(lead, method=method, reference=reference))
    without_facts = partial(lead, method="leap-fact-free", reference="admm-fact-free")
    yield Claim(OURS, "LEAP is above ADMM on text without the tested facts", "fact-free", without_facts)
    yield Claim(OURS, "LEAP takes longer than ADMM", "time", partial(cost, method=leap, reference=admm))


def claims_table(collected: CollectedTables, annealed: list[str]) -> Table:
    """One row per claim that the grid has something to say of."""
    leap, admm = called(LEAP, collected.methods) or LEAP, called(REFERENCE, collected.methods) or REFERENCE
    methods, rows = collected.methods, []
    listed = [*of_paper(leap, admm, methods), *of_readers(leap, admm, annealed)]
    listed += [*of_ours(leap, admm), *of_rivals(leap, admm, methods)]
    for claim in listed:
        found = claim.measure(collected)
        if found is None:
            log.warning("claim left out, %s: %s", left_out(claim, collected), claim.says)
        else:
            words = {"claim": claim.says, "whose": claim.whose, "table": claim.table}
            rows.append(words | asdict(found) | pair_of(claim))
    numbers = pd.DataFrame(rows, columns=COLUMNS)
    shown = pd.DataFrame(
        {
            "Claim": numbers["claim"],
            "Verdict": [decision(row) for row in numbers.itertuples()],
            "Estimate [95 %]": [estimate(row) for row in numbers.itertuples()],
            "[95 %] over models": [over_models(row) for row in numbers.itertuples()],
            "Measured on": numbers["measured"],
            "Whose": numbers["whose"],
            "Table": numbers["table"],
        }
    )
    bold = {(row.Index, "Verdict") for row in numbers.itertuples() if is_sure(row)}
    questions = len(collected.outcomes[QUESTION].drop_duplicates())
    caption = "Claims, and the verdicts of this grid"
    return Table(caption, shown, numbers, bold, NOTES.format(questions=questions), words=len(shown.columns))


def pair_of(claim: Claim) -> dict[str, str]:
    """The two methods of a claim that one is above the other, for who computes it anew; empty for other claims."""
    of_pair = isinstance(claim.measure, partial) and claim.measure.func is lead
    return {key: claim.measure.keywords[key] for key in ("method", "reference")} if of_pair else {}


def left_out(claim: Claim, collected: CollectedTables) -> str:
    """Why there is nothing to say of a claim: the methods that it names and that ran nowhere, if that is it."""
    asked = claim.measure.keywords if isinstance(claim.measure, partial) else {}
    named = [asked[key] for key in ("method", "reference") if key in asked]
    missing = [name for name in named if name not in collected.cells]
    return f"the grid ran no method {' and no '.join(missing)}" if missing else "the grid has nothing to measure it on"


NOTES = (
    "Hardened masks throughout; this grid is not the published models. A claim holds if the whole 95 % interval is on "
    "its side, does not hold if the whole interval is on the other side, and is undecided here otherwise. That "
    "interval is for these models; the verdict says so where the interval over models, as if they were drawn from many "
    "(Student's t), does not agree. Bold: several seeds, and both intervals agree. Points are of the six-task average, "
    "paired over {questions:,} questions; intervals cover questions and seeds (docs/statistics.md). One seed: one of "
    "the two methods ran once, and its spread over seeds is taken to be the other's; if both ran once, the interval "
    "covers questions only. The smallest of several: the interval is that of the smallest true lead (Bonferroni). "
    "Cells: the number with an estimate above 0, [those surely ahead, those not surely behind] by Holm at 5 %. r is "
    "Pearson's, of deviations within model, sparsity and seed; its interval counts all seeds of a method as one. Of "
    "the variance: the share that is between matrices. Intervals are not corrected for the number of claims: one of "
    "twenty may miss. Whose: the paper's, its readers' (docs/fidelity.md) or our own. `snakemake --cores 2 "
    "results/<scale>/evidence/tables/<table>.md` makes each table."
)
FORMS = {POINTS: "{:+.2f}", COEFFICIENT: "{:+.2f}", NATS: "{:+.3f}", CELLS: "{:.0f}"}
FORMS |= {PERCENT: "{:+.1f}", TIMES: "{:.1f}", SHARE: "{:.3f}"}
IN_UNIT = {POINTS: "{} points", COEFFICIENT: "r {}", NATS: "{} nats", CELLS: "{} cells"}
IN_UNIT |= {PERCENT: "{} %", TIMES: "{} times", SHARE: "{} of the variance"}
FALLS = {PERCENT}
"""Units of what a claim says is below 0."""


def decision(row: Any) -> str:
    """The verdict, whether it is for these models alone, and whether it is of one seed."""
    alone = row.verdict != UNDECIDED and not _agrees(row)
    return row.verdict + (" for these models" if alone else "") + (", one seed" if row.seeds == 1 else "")


def is_sure(row: Any) -> bool:
    """Whether several seeds decided a claim, over models too where that can be said."""
    return row.verdict != UNDECIDED and row.seeds > 1 and _agrees(row)


def _agrees(row: Any) -> bool:
    """Whether the interval over models says the same; true if there is none."""
    low, high = row.low_over_models, row.high_over_models
    if row.unit in FALLS:
        low, high = -high, -low
    return math.isnan(low) or verdict(low, high) == row.verdict


def over_models(row: Any) -> str:
    """The interval over models; empty where there is none."""
    form = FORMS[row.unit].format
    low, high = row.low_over_models, row.high_over_models
    return "" if math.isnan(low) else f"[{form(low)}, {form(high)}]".replace("-", "−")


def estimate(row: Any) -> str:
    """A value with its interval in its unit; without an interval where there is none."""
    form = FORMS[row.unit].format
    ends = "[no interval]" if math.isnan(row.low) else f"[{form(row.low)}, {form(row.high)}]"
    value = "none" if math.isnan(row.value) else form(row.value)
    return IN_UNIT[row.unit].format(f"{value} {ends}").replace("-", "−")


def full_sparsities(outcomes: pd.DataFrame, method: str) -> tuple[float, ...]:
    """Those at which a method has the most seeds: a curve of one seed is no part of the same evidence."""
    seeds = outcomes[outcomes["method"] == method].groupby("sparsity_target")["seed"].nunique()
    return tuple(seeds.index[seeds == seeds.max()])


def main(arguments: argparse.Namespace) -> None:
    """Read the collected tables of the models and write the table."""
    results, outcomes = read(arguments)
    training = read_models(arguments.root, arguments.models, TRAINING)
    leap = called(LEAP, arguments.methods) or LEAP
    seconds = pd.read_csv(checked_file(arguments.time)) if arguments.time else pd.DataFrame()
    density = read_models(arguments.root, arguments.models, DENSITY)
    sparsities = full_sparsities(outcomes, leap)
    collected = CollectedTables(results, outcomes, training, arguments.methods, sparsities, density, seconds)
    claims_table(collected, arguments.annealed).write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = table_parser("claims", __doc__)
    parser.add_argument("--time", type=Path, help="the time table's CSV, for what a method costs")
    parser.add_argument("--annealed", nargs="*", default=[], help="the methods that differ from LEAP in a schedule")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
