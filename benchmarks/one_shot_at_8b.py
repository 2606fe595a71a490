"""One-shot methods at 8B: published times, the plan's for one GPU, and what was measured on a CPU.

    python benchmarks/one_shot_at_8b.py --output benchmarks/one_shot_at_8b.csv

Nothing is run: published seconds are those of the ALPS paper (arXiv 2406.07831) for LLaMA-3-8B, the plan's are those of
`leap_repro.costs.plan` for the scale `paper`, and the CPU's come from `one_shot.csv` and `memory_at_size.csv`.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from measure import REPOSITORY, show, write_rows

from leap_repro.cli import run_stage
from leap_repro.costs.plan import START_SECONDS
from leap_repro.costs.resources import FLOAT32_COST, flops_per_second, need
from leap_repro.models.sizes import sizes_by_rule_of_thumb
from leap_repro.pipeline.grid import Study, read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.prune.layerwise import operations
from leap_repro.prune.layerwise.conjugate_gradients import LIMIT

PUBLISHED = {"magnitude": 24, "wanda": 1118, "sparsegpt": 2392, "ALPS": 6735}
OURS = ("magnitude", "wanda", "sparsegpt", "thanos", "admm", "wanda+optima", "wanda+optima-as-released")
LLAMA, OPT = 8_030_261_248, 175_000_000_000
BLOCKS = 32
SHAPES = ((4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336))
"""Of Llama-3.1-8B: rows and columns of a block's matrices."""


def seconds(study: Study, method: str, parameters: int = LLAMA) -> float | None:
    """The plan's for one cell on one GPU; None where it counts no operations."""
    flops = need("prune", study, sizes_by_rule_of_thumb(parameters), method).flops
    return START_SECONDS + flops / flops_per_second(study, True) if flops else None


def solving(study: Study, steps: float | None, kept: float) -> float:
    """Seconds that OPTIMA's solves take by their counts over the true shapes: with so many steps of conjugate
    gradients, or for None with a factor for each row."""
    if steps is None:
        counted = sum(operations.of_factors(rows, kept * columns) for rows, columns in SHAPES)
    else:
        counted = sum(operations.of_gradients(rows, columns, steps) for rows, columns in SHAPES)
    return BLOCKS * FLOAT32_COST * counted / flops_per_second(study, True)


def measured(table: str, **where: str) -> dict[str, str]:
    """CPU seconds by method of the rows of a benchmark's table that `where` describes."""
    with (REPOSITORY / "benchmarks" / table).open(encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if all(row[key] == value for key, value in where.items())]
    return {row["method"]: row["cpu_seconds"] for row in found}


def rows(study: Study) -> list[dict[str, Any]]:
    """A row for each of our methods, and for ALPS, which we have not."""
    matrix = measured("one_shot.csv", rows="1024", columns="4096", device="cpu")
    block = measured("memory_at_size.csv", shape="llama3.1-8b-block")
    found = []
    for method in (*OURS, "ALPS"):
        planned = seconds(study, method) if method in OURS else None
        found.append(
            {
                "method": method,
                "published_seconds": PUBLISHED.get(method, ""),
                "planned_seconds": round(planned) if planned else "",
                "cpu_seconds_1024x4096": matrix.get(method, ""),
                "cpu_seconds_8b_block": block.get(method, ""),
            }
        )
    return found


def note(study: Study) -> str:
    """What stands below the table."""
    kept = 1 - min(map(float, study.methods["wanda+optima"].sparsities))
    by = [round(solving(study, steps, kept)) for steps in (operations.STEPS, LIMIT, None)]
    return (
        f"By the true shapes, OPTIMA's solves take {by[0]} s of its time with {operations.STEPS} steps of conjugate "
        f"gradients, {by[1]} s with {LIMIT}, the most that are tried, and {by[2]} s with a factor for each row. "
        f"SparseGPT on 175B by plan: {seconds(study, 'sparsegpt', OPT) / 3600:.1f} h; published: under 4.5 h on one "
        "A100."
    )


def main(arguments: argparse.Namespace) -> None:
    """Write the table, and put it into docs/plan.md."""
    study = read_study(read_config(project=REPOSITORY) | {"scale": "paper"})
    write_rows(arguments.output, rows(study), note(study))
    if arguments.page:
        show(arguments.page)


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/one_shot_at_8b.py", description=__doc__)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--page", help="the page that shows the table, filled anew")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
