"""`python -m leap_repro.pipeline prune`: prune one cell (model, method, sparsity, seed) into masks or logits."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from leap_repro.cli import json_argument
from leap_repro.errors import UserError
from leap_repro.models.identity import WEIGHTS, require_made_from, weights_sha256
from leap_repro.pipeline.provenance import provenance, scratch_folder
from leap_repro.portable import CHOICES, PORTABLE
from leap_repro.portable.install import promised, use_portable_kernels
from leap_repro.prune.job import Job, Parent, read_budgets
from leap_repro.prune.learned import processes
from leap_repro.prune.methods import declaration, module_of
from leap_repro.prune.run import arithmetic, load_for, load_method, load_selector, refuse_unknown_ids, write_cell
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.sparsity.masks import unpack_masks
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.tokens import TokenRows, open_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def read_tokens(artifact: Artifact | None, model: PreTrainedModel) -> torch.Tensor | TokenRows | None:
    """Token ids [sequences, length]: the calibration sample as int64, the packed stream as rows read when needed.

    Raises UserError if they do not fit the model's vocabulary.
    """
    if artifact is None:
        return None
    rows = open_tokens(artifact)
    refuse_unknown_ids(rows.largest(), model, str(artifact.folder))
    return rows[:] if artifact.facts["recipe"].startswith("windows") else rows


CELLS = ("warm_start", "pattern_start", "parent", "budgets")
"""The sources that are hardened cells."""


def read_sources(arguments: argparse.Namespace) -> dict[str, Artifact]:
    """The artifacts that the job reads, by argument; UserError for a cell of another model."""
    given = {name: getattr(arguments, name) for name in ("model", "tokens", "held_out", *CELLS)}
    sources = {name: Artifact.read(folder) for name, folder in given.items() if folder}
    for name in CELLS:
        if name in sources:
            require_made_from(sources[name], sources["model"])
    return sources


def verify_again(sources: dict[str, Artifact]) -> None:
    """Hash for good what no later job reads, or reads for good, now that it has been read: all but the model, which an
    evaluation or an export hashes. UserError if a file was damaged meanwhile."""
    for name, source in sources.items():
        if name != "model":
            Artifact.read(source.folder, to_be_sure=True).verified_payload()


def main(arguments: argparse.Namespace) -> None:
    """Prune one cell; under torchrun together with the other processes, of which the first writes."""
    if arguments.bits == PORTABLE:
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
        raise UserError(f"{arguments.module} runs in one process; only methods that train masks run under torchrun")
    selector = load_selector(arguments.selector)
    sources = read_sources(arguments)
    names = ("module", "options", "selector", "sparsity", "seed", "dtype")
    parameters = {name: getattr(arguments, name) for name in names}
    parameters["bits"] = promised(arguments.bits, arguments.dtype)
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
        facts |= write_cell(method, job, payload)
        facts |= {
            "sparsity": arguments.sparsity,
            "seed": arguments.seed,
            "tokens_sha256": sources["tokens"].facts["ids_sha256"] if arguments.tokens else None,
            WEIGHTS: weights_sha256(sources["model"]),
        }
        verify_again(sources)
    if checkpoints:
        shutil.rmtree(checkpoints, ignore_errors=True)


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline prune", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of the fetched model")
    parser.add_argument("--tokens", type=Path, help="folder of the token shard (calibration, or mask training)")
    parser.add_argument("--warm-start", type=Path, help="hardened cell from whose mask a training starts")
    parser.add_argument("--pattern-start", type=Path, help="hardened cell whose 2:4 mask is used below patch's tiles")
    parser.add_argument("--parent", type=Path, help="hardened cell whose kept weights get new values")
    parser.add_argument("--budgets", type=Path, help="hardened cell whose share of each matrix a one-shot rule keeps")
    parser.add_argument("--held-out", type=Path, help="token shard for held-out evaluations during a training")
    parser.add_argument("--module", required=True, help="the method: its name, or the path of its file")
    parser.add_argument("--options", type=json_argument, default={}, help="the method's options as a JSON object")
    parser.add_argument(
        "--selector",
        type=json_argument,
        help='optima: {"module": …, "options": {…}} of the method that chooses the masks',
    )
    parser.add_argument("--sparsity", required=True, help="share of the prunable weights to drop, in [0, 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument(
        "--bits", default=PORTABLE, choices=CHOICES, help="portable or native kernels: docs/numerics.md"
    )
    parser.add_argument("--scratch", type=Path, help="folder of a training's checkpoints, from which it resumes")
    parser.add_argument("--output", required=True, type=Path)
    return parser
