"""What a run cannot do on this machine, found before its first job: no or too small a GPU, a full disk, no token.

Snakemake calls this when a real run starts, never in a dry run. It looks at the jobs that the run would do, sized by
the estimates of `plan.py`, so that a part of a grid needs only what that part needs.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from leap_repro.costs.fitting import gigabytes
from leap_repro.costs.notes import method_of, misfits
from leap_repro.costs.plan import Estimate, disk_of, jobs_to_run
from leap_repro.pipeline.grid import Study
from leap_repro.pipeline.launch.devices import Device, largest_memory

GO_ON = "To start anyway: --config preflight=warn"
FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Machine:
    """What is at hand: the GPUs that jobs may use (None: they run elsewhere), free bytes where the results go, and
    whether gated repositories can be asked for: by a token, or not at all because all is cached."""

    devices: list[Device] | None
    free_bytes: int
    has_token: bool


def obstacles(study: Study, jobs: list[Estimate], machine: Machine) -> Iterator[str]:
    """One sentence for each thing that the machine lacks for these jobs."""
    yield from _gpu_obstacles(study, jobs, machine.devices)
    needed = disk_of(jobs)
    if needed > machine.free_bytes:
        yield (
            f"the results of this run need about {gigabytes(needed)} of disk and {gigabytes(machine.free_bytes)} are "
            "free: clear some space, or run from a larger disk"
        )
    fetched = {job.folder for job in jobs if job.line == "models"}
    gated = [name for name, spec in study.models.items() if spec.get("gated") and f"models/{name}" in fetched]
    if gated and not machine.has_token:
        yield (
            f"these models are gated, and there is no token to fetch them: {', '.join(gated)}; accept their terms on "
            "the hub and put a token with read access into the environment variable HF_TOKEN (docs/hub.md)"
        )


def _gpu_obstacles(study: Study, jobs: list[Estimate], devices: list[Device] | None) -> Iterator[str]:
    on_gpu = [job for job in jobs if job.gpus]
    if devices is None or not on_gpu:
        return
    if not devices:
        yield (
            f"{len(on_gpu)} of {len(jobs)} jobs need a GPU, but none is found here: run on a machine with one, or on "
            "a cluster, or set `cluster: {gpus: 0}` in the configuration to run them on the CPU"
        )
        return
    for name in dict.fromkeys(job.line for job in on_gpu if job.gpus > len(devices)):
        method = name.removeprefix("prune ")
        yield (
            f"a cell of {method} is trained on {study.methods[method].gpus} GPUs, but {len(devices)} may be used here: "
            f"set `gpus: {{{method}: {len(devices)}}}` under the scale, or fewer"
        )
    memory, stated = largest_memory(devices), study.settings.gpu_memory
    if stated is not None and memory < stated * 1e9:
        chosen = [job for job in on_gpu if job.line.startswith("prune ") and method_of(study, job).automatic]
        on_gpu = [job for job in on_gpu if job not in chosen]
        yield from _smaller_than_stated(stated, memory) if chosen else ()
    yield from misfits(study, on_gpu, memory)


def _smaller_than_stated(stated: float, memory: float) -> Iterator[str]:
    """That trainings have options which are chosen for larger GPUs than this."""
    yield (
        f"options of these trainings are chosen for gpu_memory, {stated:g} GB, but the largest GPU here has "
        f"{gigabytes(memory)}: set `gpu_memory: {math.floor(memory / 1e9)}` under the scale"
    )


def this_machine(jobs: list[Estimate], folder: Path, devices: list[Device] | None) -> Machine:
    """Ask this machine, with the slow questions only where a job depends on the answer. `devices`: the GPUs that jobs
    may use; None if they run elsewhere."""
    return Machine(
        devices=devices,
        free_bytes=_free_bytes(folder),
        has_token=_is_offline() or (any(job.line == "models" for job in jobs) and _has_token()),
    )


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() not in FALSE


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())


def preflight(
    study: Study, root: Path, jobs: Iterable[tuple[str, tuple[str, ...]]], devices: list[Device] | None
) -> list[str]:
    """What stands in the way of `jobs`, pairs (rule, wildcards) as Snakemake plans them; results go under `root`.
    `devices`: the GPUs that jobs may use, None if they run elsewhere."""
    estimates = jobs_to_run(study, root, jobs)
    return list(obstacles(study, estimates, this_machine(estimates, root, devices)))
