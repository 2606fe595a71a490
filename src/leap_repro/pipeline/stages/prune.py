"""`python -m leap_repro.pipeline prune`: prune one cell (model, method, sparsity, seed); leaves masks or logits."""

from __future__ import annotations

import argparse
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from leap_repro.checked import checked
from leap_repro.cli import json_argument
from leap_repro.errors import UserError
from leap_repro.models.load import load_model, vocabulary_size
from leap_repro.models.stream import Residency, always_resident, stream_model
from leap_repro.pipeline.provenance import provenance, scratch_folder
from leap_repro.portable import use_portable_kernels
from leap_repro.portable.denormals import denormals_flushed
from leap_repro.prune.declaration import Declaration, Options
from leap_repro.prune.job import Job, Parent, Selector, read_budgets
from leap_repro.prune.learned import processes
from leap_repro.prune.methods import declaration, module_of
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.sparsity.masks import unpack_masks
from leap_repro.sparsity.pruned import PrunedFolder
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.tokens import TokenRows, open_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_method(name: str, options: dict[str, Any]) -> tuple[Declaration, Options]:
    """The method and its options, checked; UserError if there is no such method or option, or for a bad value."""
    method = declaration(name)
    return method, checked(method.options, options, f"options of {name}", root="the whole")


def load_selector(description: dict[str, Any] | None) -> Selector | None:
    """The method {"module": ..., "options": ...} whose masks a reconstruction completes; UserError if not one-shot."""
    if description is None:
        return None
    if set(description) - {"options"} != {"module"}:
        raise UserError(f"--selector needs the key module and may have options, not {sorted(description)}")
    method, options = load_method(description["module"], description.get("options", {}))
    if not method.selects:
        raise UserError(f"--selector names {description['module']!r}, which is no one-shot method")
    return Selector(method, options)


def read_tokens(artifact: Artifact | None, model: PreTrainedModel) -> torch.Tensor | TokenRows | None:
    """Token ids [sequences, length]: the calibration sample as int64, the packed stream as rows read when needed.

    Raises UserError if they do not fit the model's vocabulary.
    """
    if artifact is None:
        return None
    rows = open_tokens(artifact)
    if rows.largest() >= vocabulary_size(model):
        raise UserError(f"{artifact.folder} holds token ids beyond the model's vocabulary: rebuild its calibration")
    return rows[:] if artifact.facts["recipe"].startswith("windows") else rows


def load_for(method: Declaration, folder: Path, dtype: str) -> tuple[PreTrainedModel, Residency]:
    """The whole model for a method that needs it, in the host's memory if processes are to share it out, else one whose
    blocks stay on disk until their turn."""
    if method.trains:
        return load_model(folder, dtype, torch.device("cpu") if processes.count() > 1 else None), always_resident
    return stream_model(folder, dtype)


def arithmetic(method: Declaration) -> AbstractContextManager[None]:
    """How the job computes: a training without denormal numbers."""
    return denormals_flushed() if method.trains else nullcontext()


def read_sources(arguments: argparse.Namespace) -> dict[str, Artifact]:
    """The artifacts that the job reads, by argument."""
    names = ("model", "tokens", "warm_start", "pattern_start", "parent", "held_out", "budgets")
    given = {name: getattr(arguments, name) for name in names}
    return {name: Artifact.read(folder) for name, folder in given.items() if folder}


def main(arguments: argparse.Namespace) -> None:
    """Prune one cell; under torchrun together with the other processes, of which the first writes."""
    use_portable_kernels(arguments.dtype)
    processes.join()
    try:
        with arithmetic(declaration(arguments.module)):
            prune(arguments)
    finally:
        processes.leave()


def prune(arguments: argparse.Namespace) -> None:
    """Load, prune, write the tensors (layer-wise methods: a file per block) and `log.parquet`."""
    method, options = load_method(arguments.module, arguments.options)
    if processes.count() > 1 and not method.is_shared:
        raise UserError(f"{arguments.module} runs in one process; torchrun is for the methods that train masks")
    selector = load_selector(arguments.selector)
    sources = read_sources(arguments)
    names = ("module", "options", "selector", "sparsity", "seed", "dtype")
    parameters = {name: getattr(arguments, name) for name in names}
    run = [arguments.module, *([arguments.selector["module"]] if selector else [])]
    origin = provenance(("leap_repro.pipeline.stages.prune", *map(module_of, run)), parameters, sources)
    origin["machine"] = origin["machine"] | {"processes": processes.count()}
    checkpoints = scratch_folder(arguments.scratch, origin)
    model, residency = load_for(method, sources["model"].verified_payload(), arguments.dtype)
    job = Job(
        model=model,
        options=options,
        sparsity=parse_sparsity(arguments.sparsity),
        seed=arguments.seed,
        tokens=read_tokens(sources.get("tokens"), model),
        warm_start=unpack_masks(sources["warm_start"]) if arguments.warm_start else None,
        pattern_start=unpack_masks(sources["pattern_start"]) if arguments.pattern_start else None,
        parent=Parent.of(sources["parent"]) if arguments.parent else None,
        held_out=read_tokens(sources.get("held_out"), model),
        budgets=read_budgets(sources["budgets"], parse_sparsity(arguments.sparsity)) if arguments.budgets else None,
        checkpoints=checkpoints,
        selector=selector,
        residency=residency,
    )
    if processes.rank() > 0:
        method.prune_cell(job)
        return
    with writing(arguments.output, origin) as (payload, facts):
        store = PrunedFolder(payload)
        job = replace(job, store=store)
        cell = method.prune_cell(job)
        if cell.tensors is not store:
            store.write("pruned", cell.tensors)
        rows = store.finish()
        pq.write_table(pa.Table.from_pylist(cell.log), payload / "log.parquet")
        facts |= cell.facts | ({"tensors": rows} if rows else {})
        facts |= {
            "sparsity": arguments.sparsity,
            "seed": arguments.seed,
            "tokens_sha256": sources["tokens"].facts["ids_sha256"] if arguments.tokens else None,
        }
    if checkpoints:
        shutil.rmtree(checkpoints, ignore_errors=True)


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline prune", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of the fetched model")
    parser.add_argument("--tokens", type=Path, help="folder of the token shard (calibration, or mask training)")
    parser.add_argument("--warm-start", type=Path, help="hardened cell whose mask a learned gate starts from")
    parser.add_argument("--pattern-start", type=Path, help="hardened cell whose 2:4 mask lies under patch's tiles")
    parser.add_argument("--parent", type=Path, help="hardened cell whose kept weights get new values")
    parser.add_argument("--budgets", type=Path, help="hardened cell whose share of each matrix a one-shot rule keeps")
    parser.add_argument("--held-out", type=Path, help="token shard that a training's masks are scored on now and then")
    parser.add_argument("--module", required=True, help="the method: its name, or the path of its file")
    parser.add_argument("--options", type=json_argument, default={}, help="the method's options as a JSON object")
    parser.add_argument("--selector", type=json_argument, help='optima: {"module": …, "options": {…}} of its masks')
    parser.add_argument("--sparsity", required=True, help="share of the prunable weights to drop, in [0, 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--scratch", type=Path, help="where a training leaves checkpoints and a killed one resumes")
    parser.add_argument("--output", required=True, type=Path)
    return parser
