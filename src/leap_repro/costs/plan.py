"""`leap-repro plan`: print the cost of a grid before it runs: jobs, memory, hours and disk of each rule.

The plan is computed from the configuration and the manifests that exist, so it needs no network. `snakemake -n` ends
with the same table for the jobs that it would run. Requests to a cluster are the same estimates (`resources.py`);
docs/plan.md explains them and compares them with measurements.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from leap_repro.cli import run_stage
from leap_repro.costs.notes import notes
from leap_repro.costs.requests import sharing
from leap_repro.costs.resources import model_sizes, need
from leap_repro.models.sizes import Sizes, sizes_by_rule_of_thumb
from leap_repro.pipeline.grid import DEFAULT, GRIDS, Cell, Method, Study, read_study
from leap_repro.pipeline.jobs import held_out_seed, with_starts
from leap_repro.pipeline.launch.devices import devices, largest_memory
from leap_repro.pipeline.reading import read_config
from leap_repro.pipeline.roles import parts_of, shard_of, trains_on
from leap_repro.prune.learned.declaration import DTYPE_BYTES
from leap_repro.sparsity.budget import parse_sparsity

START_SECONDS = 1.0
"""Starting, reading and writing: what every job of a local run costs, however small. A process of its own, on a GPU or
on a cluster, takes some four seconds more."""
PROCESS_BYTES = 0.5e9
"""Python, torch and transformers before any model: benchmarks/memory_at_size.csv, shape tiny."""
HUB_BYTES = {"calibration": 1.2e9, "mask_training": 8e9, "perplexity": 2e6, "tasks": 3e7}
OUTCOMES_BYTES = 2e6
CHECKPOINT_BYTES = 2
"""Per weight of a fetched checkpoint: all of the grid's are bfloat16."""
NO_MODEL = sizes_by_rule_of_thumb(0)
"""Of a job that works on none."""
STAGES = {
    "fetch_model": "models",
    "fetch_data": "data",
    "build_tokens": "calibration",
    "prune": "prune",
    "harden": "harden",
    "evaluate": "evaluate",
}
"""The stage of each Snakemake rule that takes time or space; the rules of tables and figures take seconds."""


@dataclass(frozen=True)
class Estimate:
    """One job: bytes on a host, on each of its `gpus` and on disk, and seconds. `line`: the line of the table it counts
    in; `sizes` of its model; `is_cleaned`: what it leaves goes when its model is done."""

    line: str
    folder: str
    host_bytes: float
    gpu_bytes: float
    seconds: float
    disk_bytes: float
    is_cleaned: bool = False
    gpus: int = 0
    sizes: Sizes = NO_MODEL


@dataclass(frozen=True)
class PlanRow:
    """One rule (prune: one method): all its jobs, those already `done`, the largest job's memory, and what the jobs to
    do will cost."""

    name: str
    jobs: int
    done: int
    host_bytes: float
    gpus: int
    gpu_bytes: float
    hours: float
    disk_bytes: float


def jobs_of(study: Study, root: Path, grid: str = DEFAULT) -> Iterator[Estimate]:
    """Every job of the grid that takes time or space, in the order in which data flow."""
    sizes = {name: model_sizes(study, root, name) for name in study.models}
    cells = [cell for name in dict.fromkeys((DEFAULT, grid)) for cell in study.cells(grid=name)]
    tokens: set[str] = {role for cell in with_starts(study, cells) if (role := study.methods[cell.method].tokens)}
    tokens |= {"held_out" for cell in cells if study.methods[cell.method].is_scored_held_out}
    yield from (_job(study, "models", name, sizes[name]) for name in study.models)
    texts = {shard_of(role)[0] for role in tokens}
    yield from (_job(study, "data", role) for role in study.data if role in texts or role in HUB_BYTES)
    for name in study.models:
        for role in sorted(tokens | {"calibration"}):
            seeds = [held_out_seed(study)] if role == "held_out" else study.settings.seeds + study.seeds(grid)
            for seed in dict.fromkeys(seeds):
                yield _job(study, "calibration", f"{name}/{role}/{seed}", sizes[name])
    hardened = with_starts(study, cells)
    for stage, made in (("prune", map(study.pruned, hardened)), ("harden", hardened), ("evaluate", cells)):
        yield from (_job(study, stage, cell.path, sizes[cell.model], cell) for cell in dict.fromkeys(made))


def jobs_to_run(study: Study, root: Path, jobs: Iterable[tuple[str, tuple[str, ...]]]) -> list[Estimate]:
    """The estimates of `jobs`, (rule, its wildcards in the order of its output's path)."""
    found, sizes = [], {name: model_sizes(study, root, name) for name in study.models}
    for rule, wildcards in jobs:
        stage = STAGES.get(rule)
        if stage == "data":
            found.append(_job(study, stage, wildcards[0]))
        elif stage:
            cell = Cell(*wildcards[:3], int(wildcards[3])) if len(wildcards) == 4 else None
            found.append(_job(study, stage, "/".join(wildcards), sizes[wildcards[0]], cell))
    order = [*STAGES.values(), *(f"prune {name}" for name in study.methods)]
    return sorted(found, key=lambda job: (order.index(job.folder.split("/")[0]), order.index(job.line), job.folder))


def _job(study: Study, stage: str, place: str, sizes: Sizes = NO_MODEL, cell: Cell | None = None) -> Estimate:
    estimate = need(stage, study, sizes, cell and cell.method, cell and cell.model)
    on_gpu = bool(estimate.gpu_bytes and study.settings.cluster.gpus)
    processes, nodes = sharing(stage, study, cell and cell.method)
    host_bytes = PROCESS_BYTES + (estimate.host_bytes if on_gpu else max(estimate.host_bytes, estimate.gpu_bytes))
    return Estimate(
        line=f"prune {cell.method}" if cell and stage == "prune" else stage,
        folder=f"{stage}/{place}",
        host_bytes=processes // nodes * host_bytes,
        gpu_bytes=estimate.gpu_bytes if on_gpu else 0.0,
        seconds=START_SECONDS + estimate.seconds(study, on_gpu, processes),
        disk_bytes=disk_bytes(stage, study, place, sizes, cell),
        is_cleaned=is_cleaned(stage, study, place, cell),
        gpus=processes if on_gpu else 0,
        sizes=sizes,
    )


def is_cleaned(stage: str, study: Study, place: str, cell: Cell | None = None) -> bool:
    """Whether the configuration lets go of what a job leaves, once its model's cells are collected."""
    if stage == "calibration":
        return "tokens" in study.settings.clean_up and trains_on(place.split("/")[1])
    return (
        stage == "prune"
        and "logits" in study.settings.clean_up
        and cell is not None
        and study.methods[cell.method].declaration.leaves_logits
    )


def disk_of(jobs: Iterable[Estimate]) -> float:
    """What the jobs leave on disk, and of what is cleaned up the most that one model has: models come one by one."""
    stays, passing = 0.0, defaultdict[str, float](float)
    for job in jobs:
        if job.is_cleaned:
            passing[job.folder.split("/")[1]] += job.disk_bytes
        else:
            stays += job.disk_bytes
    return stays + max(passing.values(), default=0.0)


def disk_bytes(stage: str, study: Study, place: str, sizes: Sizes, cell: Cell | None = None) -> float:
    """What one job leaves on disk, to the first order; what a hardened cell takes over from the pruner counts once."""
    weight = DTYPE_BYTES[study.settings.dtype]
    if stage == "models":
        return CHECKPOINT_BYTES * sizes.parameters
    if stage == "data":
        return HUB_BYTES.get(parts_of(place)[0], 0.0) if study.data[place]["source"] == "hub" else 0.0
    if stage == "calibration":
        shard = getattr(study.settings, shard_of(place.split("/")[1])[1])
        return 4.0 * shard.sequences * shard.length
    if stage == "evaluate" or cell is None:
        return OUTCOMES_BYTES
    return sizes.prunable * bytes_per_weight(stage, study.methods[cell.method], cell.sparsity, weight)


def bytes_per_weight(stage: str, method: Method, sparsity: str, weight: int) -> float:
    """What the pruning or the hardening of one cell leaves of each prunable weight: logits; a bit of mask; the value,
    of `weight` bytes, if it stays and the method moves it."""
    if not method.declaration.leaves_logits:
        share = float(1 - parse_sparsity(sparsity)) if method.declaration.moves_weights else 0.0
        return 1 / 8 + weight * share if stage == "prune" else 0.0
    if stage == "harden":
        return 1 / 8
    options = method.options
    return options.logits_per_weight * options.logit_bytes + options.frozen_mask_bytes / 8


def is_done(job: Estimate, root: Path) -> bool:
    """Whether the job's result is there, be it fresh or stale."""
    return (root / job.folder / "manifest.json").is_file()


def summary(jobs: Iterable[Estimate], done: Callable[[Estimate], bool]) -> list[PlanRow]:
    """One line per rule, prune's by method, and one for all. Memory is the largest of all jobs, time and space count
    those that are not done."""
    by_line: dict[str, list[Estimate]] = {}
    for job in jobs:
        by_line.setdefault(job.line, []).append(job)
    lines = [_line(name, found, done) for name, found in by_line.items()]
    return [*lines, _line("all", [job for found in by_line.values() for job in found], done)]


def _line(name: str, jobs: list[Estimate], done: Callable[[Estimate], bool]) -> PlanRow:
    left = [job for job in jobs if not done(job)]
    return PlanRow(
        name=name,
        jobs=len(jobs),
        done=len(jobs) - len(left),
        host_bytes=max(job.host_bytes for job in jobs),
        gpus=max(job.gpus for job in jobs),
        gpu_bytes=max(job.gpu_bytes for job in jobs),
        hours=sum(job.seconds for job in left) / 3600,
        disk_bytes=disk_of(left),
    )


HEAD = ("", "jobs", "done", "RAM GB", "GPUs", "GPU GB", "hours", "disk GB")
DONE = HEAD.index("done")
NOTE = (
    "RAM, GPUs and GPU GB (memory of each GPU) are the largest job's. Hours are the sum over the jobs that are left. "
    "All numbers are computed, not measured (docs/plan.md)."
)


def table(lines: list[PlanRow], title: str) -> str:
    """The plan as text; a tally for people, not a promise."""
    rows = [HEAD, *(_row(line) for line in lines)]
    if not any(line.done for line in lines):
        rows = [row[:DONE] + row[DONE + 1 :] for row in rows]
    first = max(len(row[0]) for row in rows)
    body = [f"{row[0]:<{first}}" + "".join(f"{value:>9}" for value in row[1:]) for row in rows]
    return "\n".join([title, *body, NOTE])


def _row(line: PlanRow) -> tuple[str, ...]:
    host, gpu, disk = (_tenths(size / 1e9) for size in (line.host_bytes, line.gpu_bytes, line.disk_bytes))
    return (line.name, str(line.jobs), str(line.done), host, str(line.gpus), gpu, _tenths(line.hours), disk)


def _tenths(number: float) -> str:
    """To one decimal; "<0.1" for what is less and not nothing."""
    return "<0.1" if 0 < number < 0.05 else f"{number:.1f}"


def plan(study: Study, root: Path, grid: str = DEFAULT, gpu_bytes: float | None = None) -> str:
    """The table for `study`, whose results lie or will lie under `root`, and what it says of GPUs of `gpu_bytes`."""
    jobs = list(jobs_of(study, root, grid))
    lines = summary(jobs, lambda job: is_done(job, root))
    return "\n".join([table(lines, f"Plan of the scale {study.scale}"), *notes(study, jobs, gpu_bytes)])


def plan_of_run(
    study: Study, root: Path, jobs: Iterable[tuple[str, tuple[str, ...]]], gpu_bytes: float | None = None
) -> str:
    """The table of the jobs that Snakemake would run, none of them done; empty if there are none."""
    estimates = jobs_to_run(study, root, jobs)
    if not estimates:
        return ""
    lines = summary(estimates, lambda job: False)
    return "\n".join([table(lines, f"Plan of this run, scale {study.scale}"), *notes(study, estimates, gpu_bytes)])


def main(arguments: argparse.Namespace) -> None:
    """Read the configuration, print the plan."""
    config = read_config(arguments.config)
    study = read_study(config | ({"scale": arguments.scale} if arguments.scale else {}))
    gpu_bytes = arguments.gpu_memory * 1e9 if arguments.gpu_memory else largest_memory(devices())
    print(plan(study, Path("results") / study.scale, arguments.grid, gpu_bytes), file=sys.stdout)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="leap-repro plan", description=__doc__)
    parser.add_argument(
        "--config", type=Path, nargs="+", default=[], help="merged over the project's configuration, in this order"
    )
    parser.add_argument("--scale", help="scale to plan, instead of the configuration's")
    parser.add_argument("--grid", choices=GRIDS, default=DEFAULT, help="add this grid to the default one")
    parser.add_argument(
        "--gpu-memory", type=float, metavar="GB", help="memory of a GPU; default: this machine's largest"
    )
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
