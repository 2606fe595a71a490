"""Prune one cell, for the pipeline's stage and for the library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from leap_repro.checked import checked
from leap_repro.errors import UserError
from leap_repro.models.load import load_model, vocabulary_size
from leap_repro.models.stream import Residency, always_resident, stream_model
from leap_repro.portable.denormals import denormals_flushed
from leap_repro.portable.deterministic import deterministic
from leap_repro.prune.declaration import Declaration, Options
from leap_repro.prune.job import Job, Selector
from leap_repro.prune.learned import processes
from leap_repro.prune.methods import declaration
from leap_repro.sparsity.pruned import PrunedFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOG = "log.parquet"


def load_method(name: str, options: dict[str, Any]) -> tuple[Declaration, Options]:
    """The method and its options, checked; UserError if there is no such method or option, or for a bad value."""
    method = declaration(name)
    return method, checked(method.options, options, f"options of {name}", root="the whole")


def load_selector(description: dict[str, Any] | None) -> Selector | None:
    """The method {"module": ..., "options": ...} whose masks a reconstruction completes; UserError if not one-shot."""
    if description is None:
        return None
    if set(description) - {"options"} != {"module"}:
        raise UserError(f"selector needs the key module and may have options, not {sorted(description)}")
    method, options = load_method(description["module"], description.get("options", {}))
    if not method.selects:
        raise UserError(f"selector names {description['module']!r}, which is not a one-shot method")
    return Selector(method, options)


def load_for(method: Declaration, folder: Path, dtype: str) -> tuple[PreTrainedModel, Residency]:
    """The whole model for a method that needs it, in the host's memory if processes are to share it out, else one whose
    blocks stay on disk until their turn."""
    if method.trains:
        return load_model(folder, dtype, torch.device("cpu") if processes.count() > 1 else None), always_resident
    return stream_model(folder, dtype)


@contextmanager
def arithmetic(method: Declaration) -> Iterator[None]:
    """How the job computes: in one order, float32 in full, a training without denormal numbers."""
    with deterministic(), denormals_flushed() if method.trains else nullcontext():
        yield


def refuse_unknown_ids(largest: int, model: PreTrainedModel, place: str) -> None:
    """UserError if the largest token id at `place` lies beyond the model's vocabulary."""
    known = vocabulary_size(model)
    if largest >= known:
        raise UserError(f"{place} has token ids beyond the model's vocabulary of {known}: they are of another model")


def write_cell(method: Declaration, job: Job, payload: Path) -> dict[str, Any]:
    """Prune, and leave the tensors (layer-wise methods: a file per block) and the log in the folder `payload`; returns
    what the manifest says of them."""
    store = PrunedFolder(payload)
    cell = method.prune_cell(replace(job, store=store))
    if cell.tensors is not store:
        store.write("pruned", cell.tensors)
    rows = store.finish()
    pq.write_table(pa.Table.from_pylist(cell.log), payload / LOG)
    return cell.facts | ({"tensors": rows} if rows else {})
