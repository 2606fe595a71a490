"""Requests of a job: memory, time, GPUs, a partition, and the number of processes and nodes.

Sized by the estimates of `resources.py`: a job that needs more is killed by the cluster and tried again with twice,
then three times as much (`attempt`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from leap_repro.costs.resources import model_sizes, need
from leap_repro.models.sizes import Sizes, sizes_by_rule_of_thumb
from leap_repro.pipeline.grid import Study

BASE_MB = 1500  # Python with torch, transformers and lm-eval, and two of Snakemake that watch over them
BASE_MINUTES = 20  # start-up, reading and writing of files on a slow shared disk
TABLE_MINUTES = 5  # the same for a table or a figure, which reads no model and shares its cluster job with many others


@dataclass(frozen=True)
class Request:
    """What one job asks for; the names are Snakemake's. `runtime` is in minutes, `mem_mb` that of each of its `nodes`,
    `gpu` counts all that its `processes` compute on: one each, or none."""

    mem_mb: int
    runtime: int
    gpu: int
    slurm_partition: str
    processes: int = 1
    nodes: int = 1

    @property
    def slurm(self) -> dict[str, int | str]:
        """What Slurm's plugin needs besides for several nodes: a task each, started not by it but by the job itself,
        and the GPUs shared out evenly."""
        if self.nodes == 1:
            return {}
        evenly = {"slurm_extra": f"--gpus-per-node={self.gpu // self.nodes}"} if self.gpu else {}
        return {"mpi": "srun", "tasks": self.nodes, "tasks_per_gpu": 0} | evenly


def request(
    stage: str,
    study: Study,
    sizes: Sizes,
    method: str | None = None,
    attempt: int = 1,
    devices: int | None = None,
    model: str | None = None,
) -> Request:
    """What a job of `stage` asks for at its `attempt`-th try, 1 being the first, of a cluster, or of this machine with
    so many `devices`. `model`: as `need`."""
    cluster = study.settings.cluster
    estimate = need(stage, study, sizes, method, model)
    processes, nodes = sharing(stage, study, method, devices is None)
    gpu = processes if estimate.gpu_bytes and (cluster.gpus if devices is None else devices) else 0
    size = estimate.host_bytes if gpu else max(estimate.host_bytes, estimate.gpu_bytes)
    seconds = estimate.seconds(study, bool(gpu), processes)
    base = TABLE_MINUTES if stage in ("aggregate", "figures") else BASE_MINUTES
    # harden shares a cluster job with evaluate (the profile's groups): both must name one partition.
    on_gpu = gpu or (stage == "harden" and request("evaluate", study, sizes, method).gpu)
    return Request(
        mem_mb=attempt * processes // nodes * math.ceil(BASE_MB + 1.25 * size / 1e6),
        runtime=_within(cluster.max_runtime, stage, attempt * math.ceil(base + 2 * seconds / 60), attempt),
        gpu=gpu,
        slurm_partition=(cluster.gpu_partition if on_gpu else cluster.partition) or "",
        processes=processes,
        nodes=nodes,
    )


def sharing(stage: str, study: Study, method: str | None, on_cluster: bool = True) -> tuple[int, int]:
    """(processes, nodes) of a job: several for a training with `gpus`; this machine is one node."""
    if stage != "prune" or method is None:
        return 1, 1
    line = study.methods[method]
    return line.gpus, line.nodes(study.settings.cluster.gpus_per_node) if on_cluster else 1


def cores(study: Study, method: str, on_cluster: bool) -> int:
    """The threads of a prune job on each node: every process has the scale's."""
    processes, nodes = sharing("prune", study, method, on_cluster)
    return study.settings.threads * processes // nodes


def requests(study: Study, root: Path, devices: int | None = None) -> Callable[[str], dict[str, Any]]:
    """A function that gives a rule, named by its stage, its resources: {name: value, or function of the wildcards and
    the attempt}, sized from the model that its job works on. `root` is where the study's results lie, `devices` how
    many GPUs this machine has (None: jobs go to a cluster)."""
    cluster = study.settings.cluster
    partition = cluster.partition is not None or cluster.gpu_partition is not None
    several = devices is None and any(sharing("prune", study, name)[1] > 1 for name in study.methods)
    names = ["mem_mb", "runtime", "gpu", *(["slurm_partition"] if partition else [])]
    of_trainings = ["processes", "nodes", *(["mpi", "tasks", "tasks_per_gpu", "slurm_extra"] if several else [])]

    @cache
    def sizes(model: str | None) -> Sizes:
        return model_sizes(study, root, model) if model else sizes_by_rule_of_thumb(0)

    def resource(stage: str, name: str) -> Callable[..., int | str]:
        def value(w: Any, attempt: int) -> Any:
            model = getattr(w, "model", None)
            method = getattr(w, "method", None)
            asked = request(stage, study, sizes(model), method, attempt, devices, model)
            return (vars(asked) | asked.slurm).get(name)

        return value

    def resources(stage: str) -> dict[str, Any]:
        of_stage = names + (of_trainings if stage == "prune" else [])
        return {"in_turn": 1} | {name: resource(stage, name) for name in of_stage}

    return resources


def _within(limit: int | None, stage: str, minutes: int, attempt: int) -> int:
    """`minutes`, but no more than a partition's limit, which harden and evaluate share as they share a cluster job."""
    if limit is None:
        return minutes
    harden = min(attempt * BASE_MINUTES, (limit + 1) // 2)
    return min(minutes, {"harden": harden, "evaluate": max(1, limit - harden)}.get(stage, limit))
