"""`python -m leap_repro.report.collect`: collect one model's cells into long-form parquet.

The files have results, the outcome of every question, and densities. Every row has what is needed to trace its number
to the files that made it. A row is refused unless it was made as the workflow requests, from the present inputs
(`pipeline/chain.py`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from leap_repro.cli import json_argument, run_stage
from leap_repro.errors import UserError
from leap_repro.pipeline.chain import Chain, pruned_cell
from leap_repro.pipeline.provenance import git_commit, provenance
from leap_repro.report.layout import TASK_TITLES
from leap_repro.store.artifacts import MANIFEST, MASK_FILE, Artifact, writing

RESULTS, OUTCOMES, DENSITY = "results.parquet", "outcomes.parquet", "density.parquet"
TRAINING, LOG = "training.parquet", "log.parquet"


def cell_keys(cell: str) -> dict[str, Any]:
    """{model, method, sparsity_target, seed} of a cell's path; UserError if it is not one."""
    parts = cell.split("/")
    if len(parts) != 4:
        raise UserError(f"cell {cell!r} is not <model>/<method>/<sparsity>/<seed>")
    return {"model": parts[0], "method": parts[1], "sparsity_target": float(parts[2]), "seed": int(parts[3])}


def result_rows(root: Path, cell: str, commit: str, methods: dict[str, Any]) -> pd.DataFrame:
    """The cell's metrics, one row each, with model revision, counts, hashes, fingerprints, versions and machine.

    UserError if the weights that the evaluation counted are not those of the mask.
    """
    keys = cell_keys(cell)
    model = Artifact.read(root / "models" / keys["model"])
    hardened, evaluated = Artifact.read(root / "harden" / cell), Artifact.read(root / "evaluate" / cell)
    calibration = Artifact.read(root / "calibration" / keys["model"] / "calibration" / str(keys["seed"]))
    pruned, evaluated_by = Artifact.read(root / "prune" / pruned_cell(cell, methods)), evaluated.provenance()
    pruned_by = pruned.provenance()
    if evaluated.facts["kept"] != hardened.facts["kept"]:
        counts = f"{evaluated.facts['kept']} weights, but its mask keeps {hardened.facts['kept']}"
        raise UserError(f"cell {cell}: its evaluation counted {counts}; delete {evaluated.folder} and run again")
    facts = hardened.facts
    metrics = pd.read_parquet(evaluated.file("metrics.parquet"))
    row = keys | {
        "scale": root.name,
        "revision": model.facts["revision"],
        "pattern": "dense" if facts["kept"] == facts["prunable"] else facts["pattern"],
        "sparsity_actual": 1 - facts["kept"] / facts["prunable"],
        "nonzero": facts["kept"],
        "prunable": facts["prunable"],
        "block_parameters": model.facts["block_parameters"],
        "parameters": model.facts["parameters"],
        "sparsity_of_blocks": (facts["prunable"] - facts["kept"]) / model.facts["block_parameters"],
        "sparsity_of_model": (facts["prunable"] - facts["kept"]) / model.facts["parameters"],
        "calibration_sha256": calibration.facts["ids_sha256"],
        "tokens_sha256": facts["tokens_sha256"],
        "mask_sha256": hardened.files[MASK_FILE]["sha256"],
        "code_prune": pruned_by["code"],
        "code_evaluate": evaluated_by["code"],
        "versions": json.dumps(evaluated_by["versions"], sort_keys=True),
        "bits": bits_of(pruned_by, evaluated_by),
        "machine": json.dumps(evaluated_by["machine"], sort_keys=True),
        "git_commit": commit,
    }
    return metrics.assign(**row)[[*LEADING, *(c for c in [*metrics.columns, *row] if c not in LEADING)]]


def bits_of(*origins: dict[str, Any]) -> str:
    """Portable if all that made a row was computed so, else native."""
    return "portable" if all(origin["parameters"]["bits"] == "portable" for origin in origins) else "native"


LEADING = ["scale", "model", "revision", "method", "pattern", "sparsity_target", "sparsity_actual", "nonzero"]
LEADING += ["prunable", "seed", "task", "metric", "value", "stderr", "n", "protocol"]


def density_rows(root: Path, cell: str) -> pd.DataFrame:
    """Kept and prunable weights of every kind of matrix in every decoder block, from the hard mask's integer counts.

    A kind is the last part of a tensor's name (q_proj); the matrices of all experts of a block are summed by kind.
    """
    rows = pd.DataFrame(Artifact.read(root / "harden" / cell).facts["tensors"])
    rows["kind"] = rows["tensor"].str.removesuffix(".weight").str.rsplit(".", n=1).str[-1]
    counts = rows.groupby(["block", "kind"], sort=False)[["kept", "numel"]].sum().reset_index()
    return counts.sort_values("block", kind="stable").assign(**cell_keys(cell))


def outcome_rows(root: Path, cell: str) -> pd.DataFrame:
    """One row per question of the six tasks: differences are those of their average."""
    outcomes = pd.read_parquet(Artifact.read(root / "evaluate" / cell).file("outcomes.parquet"))
    return outcomes[outcomes["task"].isin(TASK_TITLES)].assign(**cell_keys(cell))


def training_rows(root: Path, cell: str) -> pd.DataFrame:
    """A row per step of a training of masks, as its log has them; none for another cell."""
    pruned = Artifact.read(root / "prune" / cell)
    rows = pd.read_parquet(pruned.file(LOG)) if LOG in pruned.files else pd.DataFrame()
    return rows.assign(**cell_keys(cell)) if "density_relaxed" in rows else pd.DataFrame()


def main(arguments: argparse.Namespace) -> None:
    """Write the four tables of one model."""
    commit = git_commit()
    root, cells, methods = arguments.root, arguments.cells, arguments.asked["methods"]
    chain = Chain(root, arguments.asked)
    for cell in cells:
        chain.check(cell)
    inputs = {cell: Artifact.read(root / "evaluate" / cell) for cell in cells}
    origin = provenance(("leap_repro.report.collect",), {"root": str(root)}, inputs)
    with writing(arguments.output, origin) as (payload, facts):
        rows = [result_rows(root, cell, commit, methods) for cell in cells]
        pd.concat(rows).to_parquet(payload / RESULTS, index=False)
        pd.concat([outcome_rows(root, cell) for cell in cells]).to_parquet(payload / OUTCOMES, index=False)
        pd.concat([density_rows(root, cell) for cell in cells]).to_parquet(payload / DENSITY, index=False)
        trained = [cell for cell in cells if cell == pruned_cell(cell, methods)]
        trainings = [rows for cell in trained if not (rows := training_rows(root, cell)).empty]
        none = pd.DataFrame(columns=[*cell_keys(cells[0])])
        (pd.concat(trainings) if trainings else none).to_parquet(payload / TRAINING, index=False)
        facts |= {"model": arguments.model, "cells": len(cells)}


def read_models(root: Path, models: list[str], table: str) -> pd.DataFrame:
    """One of the four tables for several models, their hashes checked; UserError for one that was not collected."""
    frames = [pd.read_parquet(Artifact.read(root / "aggregate" / model / MANIFEST).file(table)) for model in models]
    return pd.concat(frames, ignore_index=True)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.report.collect", description=__doc__)
    parser.add_argument("--root", required=True, type=Path, help="the scale's results folder")
    parser.add_argument("--model", required=True)
    parser.add_argument("--cells", required=True, nargs="+", help="<model>/<method>/<sparsity>/<seed> ...")
    parser.add_argument(
        "--asked", required=True, type=json_argument, help="the model's cells and their inputs, by `pipeline.asked`"
    )
    parser.add_argument("--output", required=True, type=Path)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
