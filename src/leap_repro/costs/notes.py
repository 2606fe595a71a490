"""What a plan says in sentences below its table: a cell's hours, what was chosen by memory, what does not fit a GPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from leap_repro.costs.fitting import AUTHORS, gigabytes, suggestion
from leap_repro.pipeline.grid import Method, Study
from leap_repro.prune.learned.automatic import in_words

if TYPE_CHECKING:
    from leap_repro.costs.plan import Estimate


def notes(study: Study, jobs: Iterable[Estimate], gpu_bytes: float | None) -> Iterator[str]:
    """What a cell of each training costs beside the authors', what was chosen for it, and what does not fit GPUs of
    `gpu_bytes`, or those that the scale states."""
    jobs = [job for job in jobs if job.gpus]
    trainings = [job for job in jobs if job.line.startswith("prune ") and method_of(study, job).declaration.trains]
    for name in dict.fromkeys(job.line for job in trainings):
        hours = sorted(job.seconds * job.gpus / 3600 for job in trainings if job.line == name)
        line = study.methods[name.removeprefix("prune ")]
        shard = study.settings.mask_training
        assert shard is not None, "no study trains without one"
        tokens = line.trained_sequences * shard.length
        several = " to ".join(dict.fromkeys(f"{end:.1f}" for end in (hours[0], hours[-1])))
        yield f"A cell of {line.name}: {several} GPU-hours for {tokens / 1e6:,.0f} million tokens."
    if trainings:
        yield f"For comparison: {AUTHORS}."
    yield from _choices(study, trainings)
    stated = study.settings.gpu_memory
    gpu_bytes = gpu_bytes or (stated * 1e9 if stated else None)
    if gpu_bytes:
        yield from (f"{sentence}." for sentence in misfits(study, jobs, gpu_bytes))


def _choices(study: Study, trainings: list[Estimate]) -> Iterator[str]:
    """A sentence for each training that has `auto` in its options: what was chosen, and for which models."""
    for name in dict.fromkeys(method_of(study, job).name for job in trainings if method_of(study, job).automatic):
        models = {_model(job) for job in trainings if method_of(study, job).name == name}
        choices = defaultdict[str, list[str]](list)
        for model in filter(models.__contains__, study.models):
            choices[in_words(study.line(name, model).options)].append(model)
        words = "; ".join(f"{choice} ({', '.join(of)})" for choice, of in choices.items())
        yield f"Chosen for {name} by gpu_memory, {study.settings.gpu_memory:g} GB: {words}."


def misfits(study: Study, jobs: Iterable[Estimate], gpu_bytes: float) -> Iterator[str]:
    """A sentence for each line of the plan whose largest job needs more memory than a GPU has: which, what fits."""
    largest: dict[str, Estimate] = {}
    for job in sorted(jobs, key=lambda job: job.gpu_bytes):
        largest[job.line] = job
    for job in largest.values():
        if job.gpu_bytes > gpu_bytes:
            words = f"{job.folder} needs about {gigabytes(job.gpu_bytes)} on a GPU of {gigabytes(gpu_bytes)}"
            if job.line.startswith("prune ") and method_of(study, job).declaration.trains:
                line = study.line(method_of(study, job).name, _model(job))
                words += f"; {suggestion(study, line, job.sizes, gpu_bytes)}"
            yield words


def method_of(study: Study, job: Estimate) -> Method:
    """The line of a job of prune."""
    return study.methods[job.line.removeprefix("prune ")]


def _model(job: Estimate) -> str:
    """Of the job of a cell."""
    return job.folder.split("/")[1]
