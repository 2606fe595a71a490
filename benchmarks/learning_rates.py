"""By which held-out loss a learning rate of LEAP is chosen: `python benchmarks/learning_rates.py RUN/prune/…/SEED …`.

The trainings are lines of the configuration with the option `held_out_evaluations`; no question of any task
is looked at. Make them by
`snakemake --cores 2 results/miniature/prune/qwen2.5-0.5b-mini/leap{,-rate-1e-3,-rate-1e-2}/0.6/0/manifest.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from measure import REPOSITORY, add_row

from leap_repro.errors import UserError
from leap_repro.store.artifacts import Artifact


def row(cell: Artifact) -> dict[str, Any]:
    """A training's rate, length and last held-out losses; UserError for one without."""
    log = pd.read_parquet(cell.file("log.parquet"))
    if "held_out_topk" not in log:
        raise UserError(f"{cell.folder} was not scored on held-out text: its options need held_out_evaluations")
    last = log.dropna(subset=["held_out_topk"]).iloc[-1]
    recorded = cell.provenance()
    model, method, sparsity, seed = cell.folder.parts[-4:]
    return {
        "model": model,
        "line": method,
        "sparsity": sparsity,
        "seed": seed,
        "learning rate": recorded["parameters"]["options"]["learning_rate"],
        "steps": int(last["step"]) + 1,
        "held-out loss, relaxed": round(float(last["held_out_relaxed"]), 4),
        "held-out loss, hardened": round(float(last["held_out_topk"]), 4),
    }


def main(arguments: argparse.Namespace) -> None:
    """Read, write."""
    for folder in arguments.cells:
        found = row(Artifact.read(folder))
        print(found, flush=True)
        add_row(arguments.output, found, ("model", "line", "sparsity", "seed"))


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/learning_rates.py", description=__doc__)
    parser.add_argument("cells", type=Path, nargs="+", help="folders of pruned cells")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks/learning_rates.csv")
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
