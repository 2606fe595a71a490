"""`export_model`: write a pruned model as a checkpoint folder with a model card, as `leap-repro export` does."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from leap_repro.errors import UserError
from leap_repro.export.folder import refuse_filled
from leap_repro.export.forms import DENSE, FORMS, form_of
from leap_repro.export.lineage import Lineage
from leap_repro.export.write import export_cell
from leap_repro.library.base import checkpoint_folder
from leap_repro.library.evaluate import Evaluation
from leap_repro.library.pruned import PrunedModel
from leap_repro.models.examine import describe, empty_model, examine
from leap_repro.models.load import DTYPES
from leap_repro.places import expanded
from leap_repro.store.artifacts import Artifact, writing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def export_model(
    pruned: PrunedModel,
    folder: str | Path,
    *,
    format: Literal["dense", "packed", "2:4"] = "dense",
    values: Literal["int8"] | None = None,
    dtype: str | None = None,
    base: str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    license: str | None = None,
    before: Evaluation | None = None,
    after: Evaluation | None = None,
) -> Path:
    """Write a pruned model into the new folder `folder`, completely or not at all, and return the folder.

    The checkpoint is that of the base, except for the numbers in the pruned matrices. A model that was pruned in memory
    is saved first, in its own type.

    Args:
        pruned: The result of `prune_model`. folder: The checkpoint folder to write; new or empty. format: "dense",
        which every library loads; "packed" or "2:4", which leave out zeros (docs/export-formats.md) and which
        `leap_repro.export.load.load_pruned` reads. values: "int8" rounds the values of "packed" to 8 bits, with a scale
        for each row. dtype: The type of all weights. Default: each tensor's type in the base. base: The folder of the
        base's checkpoint. Default: the folder that was pruned. tokenizer: The tokenizer to save with a model that was
        pruned in memory. license: The licence of the base, for the model card. before: The evaluation of the base, for
        the model card. after: The evaluation of the pruned model, for the model card.

    Raises:
        UserError: If the folder is not empty, or if the masks do not fit the base or the format.
    """
    if format not in (DENSE, *FORMS):
        raise UserError(f"format is {format!r}; it must be one of {[DENSE, *FORMS]}")
    if values is not None:
        form_of(format, values)
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; it must be one of {list(DTYPES)}")
    output = expanded(Path(folder), "folder")
    refuse_filled(output)
    with tempfile.TemporaryDirectory(prefix="leap-repro-") as temporary:
        top = Path(temporary)
        source = checkpoint_folder(base) if base is not None else pruned.base.source
        if isinstance(source, Path):
            checkpoint, name, model = source, source.name, examine(source)
        else:
            checkpoint, name = _saved(source, tokenizer, top / "checkpoint"), pruned.base.name
            model = empty_model(checkpoint)
        lineage = Lineage(
            model=_noted(top / "model", describe(model, checkpoint), {"name": name}),
            cell=pruned.cell,
            pruned=pruned.pruned,
            tokens=_tokens(top / "tokens", pruned),
            evaluated=_evaluated(top / "after", after),
            dense=_evaluated(top / "before", before) if after is not None else None,
            questions=_source(top / "tasks", after, "tasks"),
            scored_text=_source(top / "text", after, "text"),
            licence=license,
        )
        export_cell(checkpoint, lineage, output, dtype, format, values)
    return output


def _saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> Path:
    """The checkpoint of a model in memory."""
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def _noted(folder: Path, facts: dict[str, Any], parameters: dict[str, Any]) -> Artifact:
    """An artifact without files, that says something."""
    with writing(folder, {"parameters": parameters}) as (_, written):
        written |= facts
    return Artifact.read(folder)


def _tokens(folder: Path, pruned: PrunedModel) -> Artifact | None:
    if pruned.tokens is None:
        return None
    sequences, length = pruned.tokens
    return _noted(folder, {"sequences": sequences, "length": length}, {})


def _source(folder: Path, evaluation: Evaluation | None, kind: str) -> Artifact | None:
    """Where the task sets or the text of an evaluation came from, if it says so."""
    spec = evaluation.sources.get(kind) if evaluation else None
    return _noted(folder, {}, spec) if spec else None


def _evaluated(folder: Path, evaluation: Evaluation | None) -> Artifact | None:
    if evaluation is None:
        return None
    with writing(folder, {}) as (payload, _):
        pq.write_table(pa.Table.from_pylist(list(evaluation.rows)), payload / "metrics.parquet")
    return Artifact.read(folder)
