"""`leap-repro verify`: compare a finished run with the published one, cell by cell: masks and numbers.

Exit status: 0 if all are identical, 1 if some differ within rounding, 3 if some are different, 2 if the runs cannot be
compared.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from leap_repro.cli import report_errors
from leap_repro.errors import UserError
from leap_repro.report.collect import RESULTS, read_models
from leap_repro.store.sums import checked_file

CELL = ["model", "method", "sparsity_target", "seed"]
ROUNDING = 1e-5
"""Of a perplexity, relative. Scores of float32 are off by about 1e-6 from one order of summation to another, and a mean
over thousands of tokens by less; a mask that drops another weight moves a perplexity by 1e-4 and more."""
QUESTIONS = 1
"""Of a task's accuracy: a question whose two best answers are as near as that may fall either way."""
STATUS = {"identical": 0, "within rounding": 1, "different": 3}


def compare(run: pd.DataFrame, record: pd.DataFrame) -> pd.DataFrame:
    """One row per cell that both have: `mask` ("identical" or "other"), the largest difference of a `perplexity`
    (relative) and of the `questions` answered right in a task, and the `verdict`, one of STATUS.

    A cell is within rounding if its mask is identical, its perplexities within ROUNDING and its tasks within QUESTIONS.
    Raises UserError if the two have no cell in common, or a cell's metrics are not the same ones.
    """
    keys = [*CELL, "task", "metric"]
    both = run.merge(record, on=keys, suffixes=("", "_record"), how="inner")
    if both.empty:
        raise UserError("the run and the record have no cell in common: check that this is the published scale")
    counts = [frame.groupby(CELL).size() for frame in (run, record, both)]
    uneven = [cell for cell, n in counts[2].items() if (counts[0][cell], counts[1][cell]) != (n, n)]
    if uneven:
        raise UserError(f"cell {'/'.join(map(str, uneven[0]))} was evaluated on other tasks than the record's")
    return pd.DataFrame(
        [dict(zip(CELL, cell, strict=True)) | _verdict(rows) for cell, rows in both.groupby(CELL, sort=False)]
    )


def _verdict(rows: pd.DataFrame) -> dict[str, object]:
    """One cell's `mask`, `perplexity`, `questions` and `verdict`."""
    same_mask = bool((rows["mask_sha256"] == rows["mask_sha256_record"]).all())
    gaps = (rows["value"] - rows["value_record"]).abs()
    perplexities = rows["task"] == "perplexity"
    tasks = ~perplexities & (rows["task"] != "average")
    relative = float((gaps / rows["value_record"])[perplexities].max())
    questions = round(float((gaps * rows["n"] / 100)[tasks].max()))
    if same_mask and not gaps.any():
        verdict = "identical"
    elif same_mask and relative <= ROUNDING and questions <= QUESTIONS:
        verdict = "within rounding"
    else:
        verdict = "different"
    mask = "identical" if same_mask else "other"
    return {"mask": mask, "perplexity": relative, "questions": questions, "verdict": verdict}


def summary(cells: pd.DataFrame, missing: int) -> str:
    """The last line, to be quoted."""
    counts = cells["verdict"].value_counts()
    said = [f"{counts[verdict]} {verdict}" for verdict in STATUS if verdict in counts]
    masks = int((cells["mask"] == "identical").sum())
    rest = f"; {missing} of the record's cells are not in this run" if missing else ""
    return f"{len(cells)} cells compared with the published run: {', '.join(said)} ({masks} masks identical){rest}."


def page(cells: pd.DataFrame) -> str:
    """The table, a line per cell."""
    lines = [f"{'cell':<44} {'mask':<10} {'perplexity':>11} {'questions':>9}  verdict"]
    for row in cells.itertuples():
        name = f"{row.model}/{row.method}/{row.sparsity_target:g}/{row.seed}"
        lines.append(f"{name:<44} {row.mask:<10} {row.perplexity:>11.1e} {row.questions:>9}  {row.verdict}")
    return "\n".join(lines)


def read_run(root: Path) -> pd.DataFrame:
    """The results of every model that the run in `root` has collected, hashes checked; UserError if there is none."""
    models = sorted(path.parent.name for path in root.glob("aggregate/*/manifest.json"))
    if not models:
        raise UserError(f"{root} has no finished model: run `snakemake --cores all` first")
    return read_models(root, models, RESULTS)


def main(arguments: argparse.Namespace) -> int:
    """Print the table and the line, return the exit status; UserError for a record that was changed."""
    if not arguments.record.is_file():
        raise UserError(f"{arguments.record} is not a file: --record must name the published results.parquet")
    run, record = read_run(arguments.run), pd.read_parquet(checked_file(arguments.record))
    cells = compare(run, record)
    print(page(cells))
    print(summary(cells, record.groupby(CELL).ngroups - len(cells)))
    return max(STATUS[verdict] for verdict in cells["verdict"])


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="leap-repro verify", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("results/miniature"), help="folder of the finished run")
    parser.add_argument(
        "--record", type=Path, default=Path("figures/miniature/results.parquet"), help="the published results"
    )
    return parser


if __name__ == "__main__":
    with report_errors():
        sys.exit(main(parser().parse_args()))
