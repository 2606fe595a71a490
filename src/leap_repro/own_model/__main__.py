"""`leap-repro prune MODEL`: prune your model, score it before and after, and write the pruned checkpoint.

MODEL is a folder, an id on the hub, or one of the bundled miniatures. The command writes a configuration with one cell
into the run folder and runs the workflow there. Finished jobs are not repeated, and interrupted jobs continue.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from leap_repro.cli import report_errors
from leap_repro.costs.resources import model_sizes, need
from leap_repro.errors import UserError, shown
from leap_repro.hub.lock import COMMIT, LOCK_FILE, read_lock, repositories
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.sources import source_of
from leap_repro.own_model.asked import check_asked, check_method
from leap_repro.own_model.overlay import SCALE, overlay, refined
from leap_repro.own_model.summary import summary
from leap_repro.own_model.turn import turn, unlock
from leap_repro.own_model.workflow import (
    checkout,
    environment,
    failure,
    plan,
    run_workflow,
    stop_on_signals,
)
from leap_repro.pipeline.asked import asked_of
from leap_repro.pipeline.chain import Chain
from leap_repro.pipeline.grid import Cell, Study, read_study
from leap_repro.pipeline.inputs import check_inputs
from leap_repro.pipeline.launch.devices import devices
from leap_repro.pipeline.reading import project_files, read_config
from leap_repro.places import expanded
from leap_repro.store.atomic import write_text

FORMATS = ("dense", "packed", "2:4")
VALUES = ("int8",)
PRECISIONS = ("float32", "bfloat16", "float16")
DECIDES = (
    "masks",
    "text",
    "data",
    "sequences",
    "length",
    "steps",
    "seed",
    "dtype",
    "revision",
    "export_dtype",
    "format",
    "values",
)
"""The options that decide what an export holds, besides method and sparsity."""


def main(arguments: argparse.Namespace) -> None:
    """Check what is asked, then prune in the run folder while nobody else does; or unlock that."""
    try:
        if arguments.unlock:
            print(unlock(expanded(arguments.run_folder, "--run-folder").absolute()))
            return
        home = checkout()
        check_asked(arguments, home)
        config = read_config(project=home)
        if arguments.masks:
            arguments.method = "imported"
        else:
            check_method(arguments.method, config)
        run = arguments.run_folder.absolute()
        with turn(run) as lock:
            prune(arguments, config, run, lock)
    except KeyboardInterrupt:
        raise UserError("stopped; the same command continues") from None


def prune(arguments: argparse.Namespace, config: dict[str, Any], run: Path, lock: int) -> None:
    """Write the grid, run it, export, say what was done."""
    started, home = time.time(), checkout()
    on_gpu = bool(devices())
    written = overlay(arguments, config, on_gpu)
    (model,) = written["scales"][SCALE]["models"]
    path = run / f"{model}-{arguments.method}-{arguments.sparsity}.yaml"
    study = saved(path, written, home)
    whole = refined(arguments, written, study, on_gpu)
    if whole != written:
        study = saved(path, whole, home)
    cell = only_cell(study, arguments.method)
    refuse_form(study, arguments.method, arguments.format)
    check_inputs(study, outputs=(str(run),))
    pin(study.models[model], model, run, path)
    if training := in_words(study, cell, run / "results" / SCALE):
        print(training)
    if arguments.dry_run:
        print(plan(run, path, targets(cell, arguments.evaluate), arguments.cores))
        return
    run_workflow(run, path, targets(cell, arguments.evaluate), arguments.cores, lock)
    root = run / "results" / SCALE
    Chain(root, asked_of(study, cell.model)).check_mask(cell.path)
    export(arguments, root, cell, licence(study.models[model], run))
    print(summary(root, cell, arguments.output.absolute(), run, path, time.time() - started, arguments.values))


def saved(path: Path, written: dict[str, Any], home: Path) -> Study:
    """Write the overlay; the study that the workflow will read."""
    write_text(path, yaml.safe_dump(written, sort_keys=False, allow_unicode=True))
    return read_study(read_config([path], home))


def in_words(study: Study, cell: Cell, root: Path) -> str | None:
    """What a training reads and how long it will take; None for a method that does not train by steps."""
    method, shard = study.methods[cell.method], study.settings.mask_training
    if not method.trained_sequences or shard is None:
        return None
    tokens = method.trained_sequences * shard.length
    estimate = need("prune", study, model_sizes(study, root, cell.model), cell.method, cell.model)
    minutes = estimate.seconds(study, bool(study.settings.cluster.gpus), 1) / 60
    return (
        f"{cell.method} trains on {tokens:,} tokens in {method.options.steps} steps, in {study.settings.dtype}: "
        f"{minutes:.0f} minutes by estimate (docs/plan.md); --steps changes the budget"
    )


def only_cell(study: Study, method: str) -> Cell:
    """The cell that is asked for; UserError if the method is dense, or does not run at the sparsity that is asked."""
    (asked,) = study.settings.sparsities
    found = [cell for cell in study.cells() if cell.method == method and float(cell.sparsity) == asked]
    if method == "dense" or not found:
        runs_at = [float(value) for value in study.methods[method].sparsities]
        raise UserError(f"--method is {shown(method)} and --sparsity {asked:g}; that method runs at {runs_at}")
    return found[0]


def refuse_form(study: Study, method: str, form: str) -> None:
    """UserError for a 2:4 export of masks that are not: said before the run, not after it. What masks of others are is
    not known before they are read."""
    patterns = {name: (line.selector or line).options.facts["pattern"] for name, line in study.methods.items()}
    if form == "2:4" and method != "imported" and patterns[method] != form:
        fitting = [name for name, pattern in patterns.items() if pattern == form]
        theirs = f"those of {method} are {patterns[method]}"
        raise UserError(f"--format 2:4 needs masks of that pattern, {theirs}; the methods of it are {fitting}")


def targets(cell: Cell, evaluate: str) -> list[str]:
    """The files that the workflow has to make."""
    folders = [f"harden/{cell.path}"]
    if evaluate != "none":
        folders += [f"evaluate/{cell.path}", f"evaluate/{cell.model}/dense/0/{cell.seed}"]
    return [f"results/{SCALE}/{folder}/manifest.json" for folder in folders]


def pin(source: dict[str, Any], model: str, run: Path, path: Path) -> None:
    """Turn the branch of a hub model into a commit, once for a run folder: docs/hub.md."""
    lock = read_lock(run / LOCK_FILE)
    asked = list(repositories(source, "model"))
    if not asked or COMMIT.fullmatch(asked[0].revision) or f"models/{asked[0].id}" in lock:
        return
    configs = [*map(str, project_files(checkout())), str(path)]
    try:
        call("pipeline.pin", model, "--config", *configs, "--lock", str(run / LOCK_FILE))
    except UserError as error:
        why = f"no folder here is called {asked[0].id}, so the hub was asked for it"
        raise UserError(f"{why}: {error}") from error


def licence(source: dict[str, Any], run: Path) -> str | None:
    """Of the base model, as its card says; None if that says nothing."""
    return source_of(source).licence(source, read_lock(run / LOCK_FILE))


def export(arguments: argparse.Namespace, root: Path, cell: Cell, known: str | None) -> None:
    """Write the checkpoint, in a process of its own: this one does without torch."""
    call(
        "export",
        *("--model", str(root / "models" / cell.model), "--cell", str(root / "harden" / cell.path)),
        *("--format", arguments.format, "--command", said(arguments), "--output", str(arguments.output)),
        *(("--values", arguments.values) if arguments.values else ()),
        *(("--dtype", arguments.export_dtype) if arguments.export_dtype else ()),
        *(("--license", known) if known else ()),
    )


def said(arguments: argparse.Namespace) -> str:
    """The command with what decides the result; files and folders by their last names, for the card is published."""
    defaults = vars(parser().parse_args([arguments.model, "--output", "-"]))
    given = {name: vars(arguments)[name] for name in DECIDES if vars(arguments)[name] != defaults[name]}
    given = {"method": arguments.method, "sparsity": f"{arguments.sparsity:g}"} | given
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", _last_name(value))]
    return shlex.join(["leap-repro", "prune", _last_name(arguments.model), *words])


def _last_name(value: Any) -> str:
    return Path(value).name if os.path.exists(os.path.expanduser(str(value))) else str(value)


def call(module: str, *arguments: str) -> None:
    """Run one of our commands; UserError in its words if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", f"leap_repro.{module}", *arguments], env=environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(failure(done.stderr))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="leap-repro prune", description=__doc__)
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help=f"a folder, a hub id, or one of {', '.join(bundled_models())}"
    )
    parser.add_argument(
        "--method", default="wanda", help="an entry of methods: in the configuration (default: %(default)s)"
    )
    parser.add_argument("--masks", type=Path, help="score these masks instead of pruning: docs/methods/imported.md")
    parser.add_argument(
        "--sparsity", type=float, default=0.5, help="share of the prunable weights to drop (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="the checkpoint folder to write; new or empty")
    parser.add_argument(
        "--format", choices=FORMATS, default="dense", help="format of the export: docs/export-formats.md"
    )
    parser.add_argument(
        "--values", choices=VALUES, help="round the values that --format packed keeps: docs/export-formats.md"
    )
    parser.add_argument(
        "--evaluate", choices=("none", "quick", "full"), default="quick", help="how much to score, before and after"
    )
    parser.add_argument("--text", type=Path, help="text to calibrate or train on: .txt, .jsonl or .parquet")
    parser.add_argument("--data", help="hub, bundled (the miniature's), or a folder: docs/prune-a-model.md")
    parser.add_argument("--sequences", type=int, help="number of calibration sequences")
    parser.add_argument("--length", type=int, help="tokens per sequence")
    parser.add_argument("--steps", type=int, help="optimiser steps of a method that trains")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--dtype", choices=PRECISIONS, help="type to prune and score in; default: float32, bfloat16 on a GPU"
    )
    parser.add_argument(
        "--export-dtype", choices=PRECISIONS, help="type of the export; default: each tensor's as in MODEL"
    )
    parser.add_argument("--revision", default="main", help="commit, branch or tag of a hub model")
    parser.add_argument("--run-folder", type=Path, default=Path("leap-repro-run"), help="folder where results are kept")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dry-run", action="store_true", help="print the cost and run nothing")
    parser.add_argument("--unlock", action="store_true", help="remove a lock left by a power failure")
    return parser


if __name__ == "__main__":
    stop_on_signals()
    asked = parser().parse_args()
    with report_errors(asked.output):
        main(asked)
