"""The paper's claims, its readers' questions and our findings, each with what was measured and what follows:
`python -m leap_repro.aggregate.claims`. docs/claims.md shows the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from leap_repro.aggregate import findings
from leap_repro.aggregate.collect import TRAINING, read_models
from leap_repro.aggregate.command import read, table_parser
from leap_repro.aggregate.findings import CELLS, Evidence, Finding
from leap_repro.aggregate.layout import LEAP, REFERENCE, Methods, called
from leap_repro.aggregate.render import Table
from leap_repro.cli import run_stage

PAPER, READERS, HERE = "paper", "readers", "here"
"""Whose claim it is: the paper's; an answer to what its readers asked for; our own."""
LAYERWISE = ("magnitude", "wanda", "sparsegpt", "thanos", "optima")
RIVALS = {"ria": "RIA", "dsnot": "DSnoT", "owl": "OWL", "alps": "ALPS", "elsa": "ELSA"}
COLUMNS = ["claim", "whose", "measured", "value", "low", "high", "unit", "verdict", "table"]


@dataclass(frozen=True)
class Claim:
    """`says` in words; `needs`: the lines of the grid that it is about; `table` shows more of it."""

    whose: str
    says: str
    needs: tuple[str, ...]
    table: str
    measure: Callable[[Evidence], Finding]


def lead_claim(whose: str, says: str, method: str, reference: str, table: str, at_highest: bool = True) -> Claim:
    """That one line is above another, at the highest sparsity or over all cells."""

    def measure(evidence: Evidence) -> Finding:
        return findings.lead(evidence, method, reference, evidence.highest if at_highest else None)

    return Claim(whose, says, (method, reference), table, measure)


def of_paper(leap: str, admm: str, methods: Methods) -> Iterator[Claim]:
    """What the paper says, and what its readers asked for (docs/fidelity.md)."""
    pair = (leap, admm)
    mean = "LEAP is above ADMM on the mean of all cells (published: +2.59)"
    yield lead_claim(PAPER, mean, *pair, "differences", at_highest=False)
    for whose, says, measure in (
        (PAPER, "LEAP is above ADMM in every cell", findings.cells_above),
        (PAPER, "LEAP's lead over ADMM grows with sparsity", findings.growth),
        (READERS, "The lead is there with every seed", findings.of_every_seed),
    ):
        yield Claim(whose, says, pair, "differences", lambda e, measure=measure: measure(e, *pair))
    others = [name for module in LAYERWISE if (name := called(module, methods))]
    best = "ADMM is the best of the layer-wise methods"
    pairs = [(admm, other) for other in others]
    yield Claim(PAPER, best, (admm, *others), "main", lambda e: findings.weakest(e, pairs))
    maskllm = called("maskllm", methods) or "maskllm"
    lowest = "LEAP is above MaskLLM's 2:4 masks at the same sparsity"
    yield Claim(PAPER, lowest, (leap, maskllm), "main", lambda e: findings.lead(e, leap, maskllm, min(e.sparsities)))
    one = "One budget for the whole model is better than one for each matrix"
    yield lead_claim(PAPER, one, leap, "leap-layer", "crossings")
    for says, outcome in (
        ("A lower relaxed loss means a lower loss once hardened", "held_out_topk"),
        ("A lower relaxed loss means more zero-shot accuracy once hardened", "accuracy"),
    ):
        yield Claim(READERS, says, (leap,), "correlations", lambda e, outcome=outcome: findings.foretells(e, outcome))
    costs = "At the end of the training, hardening costs nothing"
    yield Claim(READERS, costs, (leap,), "gap", lambda e: findings.rounding_gap(e, leap))


def of_schedules(leap: str, admm: str, annealed: list[str]) -> Iterator[Claim]:
    """Whether the annealing is the trick."""
    pairs = [(name, admm) for name in annealed]
    yield Claim(
        READERS,
        "Under each other schedule of the annealing LEAP still is above ADMM",
        (admm, *annealed),
        "schedules",
        lambda e: findings.weakest(e, pairs, e.highest),
    )
    yield Claim(
        READERS,
        "The paper's schedule is better than each other one",
        (leap, *annealed),
        "schedules",
        lambda e: findings.weakest(e, [(leap, name) for name in annealed], e.highest),
    )


def of_ours(leap: str, admm: str) -> Iterator[Claim]:
    """What wins: mask, allocation or reconstruction; and against whom."""
    for method, reference, says in (
        (leap, "wanda+leap-budget", "Mask: LEAP's is above Wanda's of the same budget for each matrix"),
        (leap, "admm+leap-budget", "Mask: LEAP's is above ADMM's mask and values of the same budget for each matrix"),
        ("admm+leap-budget", admm, "Allocation: LEAP's budget for each matrix makes ADMM better"),
        ("magnitude+leap-budget", "magnitude", "Allocation: LEAP's budget for each matrix makes magnitude better"),
        ("owl", "wanda", "Allocation: OWL's, by outliers, makes Wanda better"),
        ("admm+owl-budget", admm, "Allocation: OWL's makes ADMM better"),
        ("leap+optima", leap, "Reconstruction: OPTIMA's values make LEAP's mask better"),
        (leap, "wanda+recover", "LEAP is above training the weights of Wanda's mask on as many tokens"),
        (leap, "admm+recover", "LEAP is above training the weights of ADMM's mask on as many tokens"),
    ):
        yield lead_claim(HERE, says, method, reference, "crossings")
    for rival, name in RIVALS.items():
        yield lead_claim(HERE, f"LEAP is above {name}", leap, rival, "main", at_highest=False)


def claims_table(evidence: Evidence, annealed: list[str]) -> Table:
    """One row per claim whose methods are in the grid."""
    leap, admm = called(LEAP, evidence.methods) or LEAP, called(REFERENCE, evidence.methods) or REFERENCE
    listed = [*of_paper(leap, admm, evidence.methods), *of_schedules(leap, admm, annealed), *of_ours(leap, admm)]
    rows = []
    for claim in listed:
        if evidence.has(*claim.needs):
            found = claim.measure(evidence)
            numbers = [found.value, found.low, found.high, found.unit, found.verdict, claim.table]
            rows.append([claim.says, claim.whose, found.measured, *numbers])
    numbers = pd.DataFrame(rows, columns=COLUMNS)
    shown = pd.DataFrame(
        {
            "Claim": numbers["claim"],
            "Measured": numbers["measured"],
            "Whose": numbers["whose"],
            "Estimate [95 %]": [estimate(row) for row in numbers.itertuples()],
            "Verdict": [f"**{text}**" for text in numbers["verdict"]],
            "Table": numbers["table"],
        }
    )
    return Table("Claims, and what this grid says of them", shown, numbers, notes=NOTES)


NOTES = (
    "Hardened masks throughout. Points: of the six-task average, paired over questions, 95 % intervals that hold "
    "questions and, where there are several, seeds (docs/statistics.md). A claim holds if the whole interval is on its "
    "side, does not hold if the whole interval is on the other, and is undecided here otherwise. Here is this grid, "
    "which is not the published models. Intervals are one by one; of many claims some will be wrong. Each table: "
    "`snakemake --cores 2 results/<scale>/evidence/tables/<table>.md`."
)


def estimate(row: object) -> str:
    """A value with its interval in its unit."""
    if row.unit == CELLS:
        return f"{row.value:.0f} [{row.low:.0f}, {row.high:.0f}] {row.unit}"
    digits = 2 if row.unit == findings.POINTS else 3
    numbers = (f"{number:+.{digits}f}" for number in (row.value, row.low, row.high))
    value, low, high = (number.replace("-", "−") for number in numbers)
    return f"{value} [{low}, {high}] {row.unit}"


def full_sparsities(outcomes: pd.DataFrame, method: str) -> tuple[float, ...]:
    """Those at which a method has the most seeds: a curve of one seed is no part of the same evidence."""
    seeds = outcomes[outcomes["method"] == method].groupby("sparsity_target")["seed"].nunique()
    return tuple(seeds.index[seeds == seeds.max()])


def main(arguments: argparse.Namespace) -> None:
    """Read the collected tables of the models and write the table."""
    results, outcomes = read(arguments)
    training = read_models(arguments.root, arguments.models, TRAINING)
    leap = called(LEAP, arguments.methods) or LEAP
    evidence = Evidence(results, outcomes, training, arguments.methods, full_sparsities(outcomes, leap))
    claims_table(evidence, arguments.annealed).write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = table_parser("claims", __doc__)
    parser.add_argument("--annealed", nargs="*", default=[], help="the methods that differ from LEAP in a schedule")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
