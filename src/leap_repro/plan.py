"""`python -m leap_repro.plan`: what a grid costs before anything runs: jobs, memory, hours and disk, rule by rule.

Everything comes from the configuration and from which manifests are there already, so it needs no network, and
`snakemake -n` prints it too. The estimates are those that a cluster is asked by (`resources.py`); docs/plan.md explains
them and compares them with what was measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from leap_repro.budget import parse_sparsity
from leap_repro.cli import run_stage
from leap_repro.config import Cell, Study, read_study
from leap_repro.resources import DTYPE_BYTES, flops_per_second, need, parameters_of

START_SECONDS = 15.0
"""Starting Python, torch and transformers, reading and writing: what every job costs, however small."""
MOVES_WEIGHTS = ("sparsegpt", "thanos", "admm", "optima")
HUB_BYTES = {"calibration": 1.2e9, "mask_training": 8e9, "perplexity": 2e6, "tasks": 3e7}
OUTCOMES_BYTES = 2e6
CHECKPOINT_BYTES = 2
"""Per weight of a fetched checkpoint: all of the grid's are bfloat16."""


@dataclass(frozen=True)
class Estimate:
    """One job: bytes on the host, on the GPU and on disk, and seconds."""

    rule: str
    folder: str
    host_bytes: float
    gpu_bytes: float
    seconds: float
    disk_bytes: float


@dataclass(frozen=True)
class Line:
    """One rule: all its jobs, those already `done`, the largest job's memory, and what the others will cost."""

    rule: str
    jobs: int
    done: int
    host_bytes: float
    gpu_bytes: float
    hours: float
    disk_bytes: float


def jobs_of(study: Study, root: Path, extended: bool = False) -> Iterator[Estimate]:
    """Every job of the grid that takes time or space, in the order in which data flow."""
    sizes = {name: parameters_of(spec, root / "models" / name / "manifest.json") for name, spec in study.models.items()}
    cells = [cell for grid in {False, extended} for cell in study.cells(extended=grid)]
    tokens = {study.methods[cell.method].tokens for cell in cells} - {None}
    yield from (_job(study, "models", name, sizes[name]) for name in study.models)
    yield from (_job(study, "data", role, 0) for role in study.settings["data"])
    for name in study.models:
        for role in sorted(tokens | {"calibration"}):
            for seed in study.settings["seeds"]:
                yield _job(study, "calibration", f"{name}/{role}/{seed}", sizes[name])
    for stage in ("prune", "harden", "evaluate"):
        yield from (_job(study, stage, cell.path, sizes[cell.model], cell) for cell in dict.fromkeys(cells))


def _job(study: Study, stage: str, place: str, parameters: int, cell: Cell | None = None) -> Estimate:
    estimate = need(stage, study, parameters, cell and cell.method)
    on_gpu = bool(estimate.gpu_bytes and study.settings.get("cluster", {}).get("gpus"))
    return Estimate(
        rule=stage,
        folder=f"{stage}/{place}",
        host_bytes=estimate.host_bytes if on_gpu else max(estimate.host_bytes, estimate.gpu_bytes),
        gpu_bytes=estimate.gpu_bytes if on_gpu else 0.0,
        seconds=START_SECONDS + estimate.flops / flops_per_second(study, on_gpu),
        disk_bytes=disk_bytes(stage, study, place, parameters, cell),
    )


def disk_bytes(stage: str, study: Study, place: str, parameters: int, cell: Cell | None = None) -> float:
    """What one job leaves on disk, to the first order: every parameter counts as prunable."""
    weight = DTYPE_BYTES[study.settings.get("dtype", "float32")]
    if stage == "models":
        return CHECKPOINT_BYTES * parameters
    if stage == "data":
        return HUB_BYTES.get(place, 0.0) if study.settings["data"][place]["source"] == "hub" else 0.0
    if stage == "calibration":
        shard = study.settings[place.split("/")[1]]
        return 4.0 * shard["sequences"] * shard["length"]
    if stage == "evaluate" or cell is None:
        return OUTCOMES_BYTES
    method = study.methods[cell.method]
    values = weight * parameters if method.module in MOVES_WEIGHTS else 0.0
    if stage == "harden":
        return parameters / 8 + values * float(1 - parse_sparsity(cell.sparsity))
    return parameters * 4.0 if method.tokens == "mask_training" else parameters + values


def summary(jobs: Iterable[Estimate], root: Path) -> list[Line]:
    """One line per rule; a job is done if its manifest is there."""
    by_rule: dict[str, list[Estimate]] = {}
    for job in jobs:
        by_rule.setdefault(job.rule, []).append(job)
    lines = []
    for rule, all_jobs in by_rule.items():
        left = [job for job in all_jobs if not (root / job.folder / "manifest.json").is_file()]
        lines.append(
            Line(
                rule=rule,
                jobs=len(all_jobs),
                done=len(all_jobs) - len(left),
                host_bytes=max(job.host_bytes for job in all_jobs),
                gpu_bytes=max(job.gpu_bytes for job in all_jobs),
                hours=sum(job.seconds for job in left) / 3600,
                disk_bytes=sum(job.disk_bytes for job in left),
            )
        )
    return lines


def table(lines: list[Line], scale: str) -> str:
    """The plan as text, with a total; a tally for people, not a promise."""
    head = f"{'stage':<12} {'jobs':>5} {'done':>5} {'memory GB':>10} {'GPU GB':>8} {'hours to do':>12} {'disk GB':>8}"
    rows = [_row(line) for line in lines]
    total = Line(
        "all",
        sum(line.jobs for line in lines),
        sum(line.done for line in lines),
        max(line.host_bytes for line in lines),
        max(line.gpu_bytes for line in lines),
        sum(line.hours for line in lines),
        sum(line.disk_bytes for line in lines),
    )
    note = "memory: the largest job's. hours: job after job, GPU hours where there is GPU memory. See docs/plan.md."
    return "\n".join([f"Plan of the scale {scale} (estimates)", head, *rows, _row(total), note])


def _row(line: Line) -> str:
    gigabytes = (line.host_bytes / 1e9, line.gpu_bytes / 1e9, line.disk_bytes / 1e9)
    host, gpu, disk = gigabytes
    return f"{line.rule:<12} {line.jobs:>5} {line.done:>5} {host:>10.1f} {gpu:>8.1f} {line.hours:>12.1f} {disk:>8.1f}"


def plan(study: Study, root: Path, extended: bool = False) -> str:
    """The table for `study`, whose results lie or will lie under `root`."""
    return table(summary(jobs_of(study, root, extended), root), study.scale)


def main(arguments: argparse.Namespace) -> None:
    """Read the configuration, print the plan."""
    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    schema = Path(__file__).parents[2] / "workflow/schemas/config.schema.yaml"
    study = read_study(config | ({"scale": arguments.scale} if arguments.scale else {}), schema)
    print(plan(study, Path("results") / study.scale, arguments.extended), file=sys.stdout)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.plan", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("config.yaml"))
    parser.add_argument("--scale", help="instead of the configuration's own")
    parser.add_argument("--extended", action="store_true", help="with the extended grid")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
