"""`python -m leap_repro.pipeline.examination`: examine a study's local models and task sets before any job.

These checks need torch or pyarrow, whose imports a dry run must not pay for, so they run in a separate process. A
verdict without errors is kept until a file, the code or a library changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leap_repro
from leap_repro.cli import json_argument, run_stage
from leap_repro.errors import UserError, reason
from leap_repro.models.checkpoint import checkpoint_files
from leap_repro.pipeline.fingerprint import fingerprint
from leap_repro.pipeline.grid import Study
from leap_repro.pipeline.inputs import task_files
from leap_repro.sparsity.patterns import UNSTRUCTURED, check_shape, parse_pattern
from leap_repro.store.machine import versions

NOTE = "note: "
"""How what is worth knowing begins, in the log of an examination."""
SECONDS = 600
"""The longest time that one model, or the task sets, may take."""
VERDICTS = Path(".snakemake/examined")
"""Empty files, named by digests of what was examined."""


def examine_inputs(study: Study) -> None:
    """UserError for the first local model or task set of `study` that a job would refuse, or use wrongly."""
    new = {key: item for key, item in _items(study) if not _verdict(item).exists()}
    if not new:
        return
    print(f"Examining {', '.join(new)} (once, and again after a change)", file=sys.stderr)
    source = str(Path(leap_repro.__file__).parents[1])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "leap_repro.pipeline.examination", "--items", json.dumps(new)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])},
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS * len(new),
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"config: examining {', '.join(new)} takes more than {error.timeout:g} seconds") from None
    for line in done.stderr.splitlines():
        if NOTE in line:
            print(line[line.index(NOTE) :], file=sys.stderr)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(last.removeprefix("error: "))
    for item in new.values():
        _keep(_verdict(item))


def _items(study: Study) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place in the configuration, what to examine there) of each local model and of the task sets."""
    for name, spec in study.models.items():
        if spec["source"] == "path":
            chosen = {key: spec[key] for key in ("path", "allow_dense_share") if key in spec}
            chosen["patterns"] = _patterns(study, name)
            yield f"scales.{study.scale}.models.{name}", {"model": chosen}
    if study.data["tasks"]["source"] == "path":
        further = [name for name, task in study.data["tasks"].get("further", {}).items() if "path" in task]
        files = [str(path) for path in task_files(study.data["tasks"])]
        yield f"scales.{study.scale}.data.tasks", {"tasks": {"files": files, "further": further}}


def _patterns(study: Study, model: str) -> list[str]:
    """The N:M patterns that the grids' methods ask of a model's matrices."""
    methods = {cell.method for grid in study.grids for cell in study.cells(model, grid)}
    found = {study.methods[name].options.facts["pattern"] for name in methods}
    return sorted(pattern for pattern in found if pattern != UNSTRUCTURED)


def _verdict(item: dict[str, Any]) -> Path:
    """Where a verdict on the item as it is now is kept."""
    files = item["tasks"]["files"] if "tasks" in item else checkpoint_files(Path(item["model"]["path"]).expanduser())
    states = [(str(file), os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files]
    known = [item, states, fingerprint("leap_repro.pipeline.examination"), versions()]
    return VERDICTS / hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _keep(verdict: Path) -> None:
    try:
        verdict.parent.mkdir(parents=True, exist_ok=True)
        verdict.touch()
    except OSError:
        pass  # it is only not known the next time


def main(arguments: argparse.Namespace) -> None:
    """Examine every item; UserError, with its place, for the first that is wrong."""
    for key, item in arguments.items.items():
        try:
            _examine(item)
        except UserError as error:
            raise UserError(f"config: {key}: {error}") from error
        except Exception as error:  # files of strangers, read by libraries that trust them
            raise UserError(f"config: {key} cannot be read: {type(error).__name__}: {reason(error)}") from error


def _examine(item: dict[str, Any]) -> None:
    if "tasks" in item:
        from leap_repro.store.questions import check_sets

        check_sets(map(Path, item["tasks"]["files"]), item["tasks"]["further"])
        return
    from leap_repro.models.examine import examine
    from leap_repro.models.prunable import prunable_linears
    from leap_repro.models.shares import ALLOWED

    model = examine(Path(item["model"]["path"]).expanduser(), item["model"].get("allow_dense_share", ALLOWED))
    for pattern in item["model"]["patterns"]:
        for linear in prunable_linears(model):
            check_shape(linear.name, linear.weight.shape[1], parse_pattern(pattern))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline.examination", description=__doc__)
    parser.add_argument(
        "--items", required=True, type=json_argument, help='{"place": {"model": {"path": "/my/model"}}}'
    )
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
