"""What a run cannot do on this machine, found before its first job: no or too small a GPU, a full disk, no token.

Snakemake calls this when a real run starts, never in a dry run. It looks at the jobs that the run would do, sized by
the estimates of `plan.py`, so that a part of a grid needs only what that part needs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from leap_repro.study.grid import Study
from leap_repro.study.plan import Estimate, disk_of, jobs_to_run

GO_ON = "To start all the same: --config preflight=warn"
FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Machine:
    """What is at hand: memory in bytes of the largest GPU (0: none; None: the jobs run elsewhere), free bytes where the
    results go, and whether gated repositories can be asked for: by a token, or not at all because all is cached."""

    gpu_bytes: int | None
    free_bytes: int
    has_token: bool


def obstacles(study: Study, jobs: list[Estimate], machine: Machine) -> Iterator[str]:
    """One sentence for each thing that the machine lacks for these jobs."""
    yield from _gpu_obstacles(jobs, machine.gpu_bytes)
    needed = disk_of(jobs)
    if needed > machine.free_bytes:
        yield (
            f"the results of this run need about {_gigabytes(needed)} of disk and {_gigabytes(machine.free_bytes)} are "
            "free: make room, or run from a larger disk"
        )
    fetched = {job.folder for job in jobs if job.line == "models"}
    gated = [name for name, spec in study.models.items() if spec.get("gated") and f"models/{name}" in fetched]
    if gated and not machine.has_token:
        yield (
            f"gated and still to be fetched: {', '.join(gated)}; there is no token: accept their terms on the hub and "
            "put a token with read access into the environment variable HF_TOKEN (docs/hub.md)"
        )


def _gpu_obstacles(jobs: list[Estimate], gpu_bytes: int | None) -> Iterator[str]:
    on_gpu = sorted((job for job in jobs if job.gpu_bytes), key=lambda job: -job.gpu_bytes)
    if gpu_bytes is None or not on_gpu:
        return
    too_large = [job for job in on_gpu if job.gpu_bytes > gpu_bytes]
    if not gpu_bytes:
        yield (
            f"{len(on_gpu)} of {len(jobs)} jobs need a GPU and torch finds none here: run on a machine with one, or on "
            "a cluster, or let `cluster: {gpus: 0}` in the config say that they may run on the CPU"
        )
    elif too_large:
        yield (
            f"{len(too_large)} of {len(jobs)} jobs need more GPU memory than the {_gigabytes(gpu_bytes)} here, "
            f"{too_large[0].folder} about {_gigabytes(too_large[0].gpu_bytes)}: docs/plan.md says what lowers it"
        )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def this_machine(jobs: list[Estimate], folder: Path, local: bool) -> Machine:
    """Ask this machine, with the slow questions only where a job depends on the answer. `local`: jobs run here."""
    return Machine(
        gpu_bytes=_largest_gpu() if local and any(job.gpu_bytes for job in jobs) else None,
        free_bytes=_free_bytes(folder),
        has_token=_is_offline() or (any(job.line == "models" for job in jobs) and _has_token()),
    )


def _largest_gpu() -> int:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return max((torch.cuda.get_device_properties(index).total_memory for index in range(count)), default=0)


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() not in FALSE


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())


def preflight(study: Study, root: Path, jobs: Iterable[tuple[str, tuple[str, ...]]], local: bool) -> list[str]:
    """What stands in the way of `jobs`, pairs (rule, wildcards) as Snakemake plans them; results go under `root`."""
    estimates = jobs_to_run(study, root, jobs)
    return list(obstacles(study, estimates, this_machine(estimates, root, local)))
