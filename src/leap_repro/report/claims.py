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
from typing import Any

import pandas as pd

from leap_repro.cli import run_stage
from leap_repro.report.collect import TRAINING, read_models
from leap_repro.report.command import read, table_parser
from leap_repro.report.findings import (
    CELLS,
    COEFFICIENT,
    EQUAL,
    NATS,
    POINTS,
    UNDECIDED,
    CollectedTables,
    Finding,
    cells_above,
    foretells,
    grows,
    lead,
    of_every_seed,
    rounding_gap,
    weakest,
)
from leap_repro.report.layout import LEAP, REFERENCE, Methods, called
from leap_repro.report.published import published_differences, signed
from leap_repro.report.render import Table
from leap_repro.report.statistics import QUESTION

log = logging.getLogger(__name__)
PAPER, READERS, OURS = "paper", "readers", "ours"
"""Whose claim it is: the paper's; an answer to what its readers asked for (docs/fidelity.md); our own."""
LAYERWISE = ("magnitude", "wanda", "sparsegpt", "thanos", "optima")
RIVALS = {"ria": "RIA", "dsnot": "DSnoT", "owl": "OWL", "alps": "ALPS", "elsa": "ELSA"}
COLUMNS = ["claim", "whose", "verdict", "value", "low", "high", "unit", "seeds", "measured", "table"]


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


def of_readers(leap: str, admm: str, annealed: list[str]) -> Iterator[Claim]:
    """What the paper's readers asked for: seeds, the hardened model, whether the annealing is the trick."""
    each = "The mean lead over ADMM is there with each seed that ran"
    yield Claim(READERS, each, "differences", partial(of_every_seed, method=leap, reference=admm))
    for says, outcome in (
        ("A training with a lower relaxed loss has a lower loss once hardened (ρ above 0)", "held_out_topk"),
        ("A training with a lower relaxed loss has more zero-shot accuracy (ρ below 0)", "accuracy"),
    ):
        yield Claim(READERS, says, "correlations", partial(foretells, outcome=outcome))
    same = f"At the end of LEAP's training, hardening changes the mean loss by less than {EQUAL}"
    yield Claim(READERS, same, "gap", partial(rounding_gap, method=leap))
    for says, pairs in (
        ("LEAP is above ADMM under each other annealing schedule, too", [(name, admm) for name in annealed]),
        ("The paper's annealing schedule is better than each other one", [(leap, name) for name in annealed]),
    ):
        yield Claim(READERS, says, "annealing", partial(weakest, pairs=pairs, highest=True))


def of_ours(leap: str, admm: str) -> Iterator[Claim]:
    """What wins: mask, allocation or reconstruction; and against whom."""
    for method, reference, says in (
        (leap, "wanda+leap-budget", "Mask: LEAP is above Wanda, each matrix keeping as much"),
        (leap, "admm+leap-budget", "Mask: LEAP is above ADMM with its values, each matrix keeping as much"),
        (leap, "leap-layer", "Allocation: LEAP is better with one budget for the model than with one for each matrix"),
        ("admm+leap-budget", admm, "Allocation: LEAP's budget for each matrix makes ADMM better"),
        ("magnitude+leap-budget", "magnitude", "Allocation: LEAP's budget for each matrix makes magnitude better"),
        ("owl", "wanda", "Allocation: OWL's, by outliers, makes Wanda better"),
        ("admm+owl-budget", admm, "Allocation: OWL's, by outliers, makes ADMM better"),
        ("leap+optima", leap, "Reconstruction: OPTIMA's values make LEAP's mask better"),
        (leap, "wanda+recover", "LEAP is above Wanda's mask with its weights trained on as many tokens"),
        (leap, "admm+recover", "LEAP is above ADMM's mask with its weights trained on as many tokens"),
    ):
        yield Claim(OURS, says, "crossings", partial(lead, method=method, reference=reference, highest=True))
    for rival, name in RIVALS.items():
        says = f"LEAP is above {name}, on the mean of all cells"
        yield Claim(OURS, says, "main", partial(lead, method=leap, reference=rival))


def claims_table(collected: CollectedTables, annealed: list[str]) -> Table:
    """One row per claim that the grid has something to say of."""
    leap, admm = called(LEAP, collected.methods) or LEAP, called(REFERENCE, collected.methods) or REFERENCE
    listed = [*of_paper(leap, admm, collected.methods), *of_readers(leap, admm, annealed), *of_ours(leap, admm)]
    rows = []
    for claim in listed:
        found = claim.measure(collected)
        if found is None:
            log.warning("claim left out, %s: %s", left_out(claim, collected), claim.says)
        else:
            rows.append({"claim": claim.says, "whose": claim.whose, "table": claim.table, **asdict(found)})
    numbers = pd.DataFrame(rows, columns=COLUMNS)
    shown = pd.DataFrame(
        {
            "Claim": numbers["claim"],
            "Verdict": [decision(row) for row in numbers.itertuples()],
            "Estimate [95 %]": [estimate(row) for row in numbers.itertuples()],
            "Measured on": numbers["measured"],
            "Whose": numbers["whose"],
            "Table": numbers["table"],
        }
    )
    bold = {(row.Index, "Verdict") for row in numbers.itertuples() if row.verdict != UNDECIDED and row.seeds > 1}
    questions = len(collected.outcomes[QUESTION].drop_duplicates())
    caption = "Claims, and what this grid says of them"
    return Table(caption, shown, numbers, bold, NOTES.format(questions=questions), words=len(shown.columns))


def left_out(claim: Claim, collected: CollectedTables) -> str:
    """Why there is nothing to say of a claim: the methods that it names and that ran nowhere, if that is it."""
    asked = claim.measure.keywords if isinstance(claim.measure, partial) else {}
    named = [asked[key] for key in ("method", "reference") if key in asked]
    missing = [name for name in named if name not in collected.cells]
    return f"the grid ran no method {' and no '.join(missing)}" if missing else "the grid has nothing to measure it on"


NOTES = (
    "Hardened masks throughout; this grid is not the published models. A claim holds if the whole 95 % interval is on "
    "its side, does not hold if the whole interval is on the other side, and is undecided here otherwise. Points: of "
    "the six-task average, paired over {questions:,} questions; the intervals hold questions and seeds "
    "(docs/statistics.md). One seed: its interval holds questions only and is too narrow; another seed may decide "
    "otherwise. The smallest of several: the interval is that of the smallest true lead (Bonferroni). Cells: how many "
    "have an estimate above 0, [those surely ahead, those not surely behind] by Holm at 5 %. ρ: Spearman's, within "
    "model and sparsity; its interval counts all seeds of a line as one. Intervals of different claims are one by one: "
    "of twenty, one may miss. Whose: the paper's, an answer to its readers (docs/fidelity.md), our own. Each table: "
    "`snakemake --cores 2 results/<scale>/evidence/tables/<table>.md`."
)
FORMS = {POINTS: "{:+.2f}", COEFFICIENT: "{:+.2f}", NATS: "{:+.3f}", CELLS: "{:.0f}"}
IN_UNIT = {POINTS: "{} points", COEFFICIENT: "ρ {}", NATS: "{} nats", CELLS: "{} cells"}


def decision(row: Any) -> str:
    """The verdict, and whether it is of one seed alone."""
    return row.verdict + (", one seed" if row.seeds == 1 else "")


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
    collected = CollectedTables(results, outcomes, training, arguments.methods, full_sparsities(outcomes, leap))
    claims_table(collected, arguments.annealed).write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = table_parser("claims", __doc__)
    parser.add_argument("--annealed", nargs="*", default=[], help="the methods that differ from LEAP in a schedule")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
