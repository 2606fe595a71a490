"""`evaluate_model`: zero-shot accuracies and perplexity of a model, as rows like those of the pipeline's evaluation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import torch

from leap_repro.data.tasks import fetch_tasks
from leap_repro.data.text import fetch_text
from leap_repro.errors import UserError
from leap_repro.evaluate.rows import Row, accuracy_rows, perplexity_rows
from leap_repro.evaluate.zero_shot import Outcome, evaluate_tasks
from leap_repro.library.base import Base, frozen, kernels
from leap_repro.library.pruned import PrunedModel
from leap_repro.models.checkpoint import position_limit
from leap_repro.portable import NATIVE, Bits
from leap_repro.portable.deterministic import deterministic

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LENGTH = 2048
MINIATURE = "miniature"
"""What `tasks` and `text` may be besides: the synthetic world's."""


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate_model`.

    Attributes:
        rows: One row per metric: {"task", "metric", "value", "stderr", "n", "protocol"}. Accuracies are in percent; `n`
        counts questions or windows. outcomes: One row per question. bits: The kernels that computed it: "portable" or
        "native". sources: The sources of "tasks" and "text" in the form of a configuration, if they were files or the
        miniature's.
    """

    rows: tuple[Row, ...]
    outcomes: tuple[Outcome, ...] = field(repr=False)
    bits: str
    sources: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def accuracies(self) -> dict[str, tuple[float, float]]:
        """{task, or "average" for the mean of the six: (percent, standard error)}."""
        rows = (row for row in self.rows if row["metric"] == "acc")
        return {row["task"]: (row["value"], row["stderr"]) for row in rows}

    @property
    def perplexities(self) -> dict[int, tuple[float, float]]:
        """{window length in tokens: (perplexity, standard error)}."""
        rows = (row for row in self.rows if row["task"] == "perplexity")
        return {int(row["metric"].partition("@")[2]): (row["value"], row["stderr"]) for row in rows}


def evaluate_model(
    model: PreTrainedModel | PrunedModel | str | Path,
    *,
    tasks: str | Path | None = None,
    text: Sequence[str] | str | Path | None = None,
    lengths: Sequence[int] | None = None,
    windows: int | None = None,
    questions: int | None = None,
    batch_size: int = 32,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: str | None = None,
    bits: Bits = NATIVE,
) -> Evaluation:
    """Evaluate a model on zero-shot tasks, by lm-eval, and by perplexity, over windows without overlap.

    Args:
        model: What `prune_model` takes or returns. A model in memory needs its `tokenizer`.
        tasks: A folder with the six sets as <set>/<split>.parquet in the originals' schemas (docs/extending.md), or
            "miniature".
        text: The perplexity text: documents, a file (.parquet with a column `text`, .jsonl, .txt), or "miniature".
        lengths: Window lengths in tokens. Default: 2,048, or the model's positions if it has fewer.
        windows: The number of windows of each length to score, from the first. Default: all.
        questions: The number of questions of each task, a seeded sample. Default: all.
        batch_size: Questions or windows per forward pass.
        tokenizer: The tokenizer of a model in memory.
        dtype: As in `prune_model`.
        bits: As in `prune_model`.

    Raises:
        UserError: If neither tasks nor text is given, or if text, tasks or model cannot be used.
    """
    if tasks is None and text is None:
        raise UserError("tasks and text are not given: give at least one of them")
    given = {"tasks": (tasks, {}), "text": (text, {"split": "test"})}
    sources = {name: source_of(of, more) for name, (of, more) in given.items() if isinstance(of, str | Path)}
    base = model.base if isinstance(model, PrunedModel) else Base.of(model, dtype, to_score=True)
    own = base.tokenizer(tokenizer)
    with kernels(bits, base.dtype), deterministic(), _to_score(model, base) as loaded, torch.inference_mode():
        scored: list[Row] = []
        if text is not None:
            limit = position_limit(base.config)
            asked = list(lengths or [min(LENGTH, limit or LENGTH)])
            documents = _documents(sources["text"]) if isinstance(text, str | Path) else list(text)
            scored = perplexity_rows(loaded, own, documents, asked, batch_size, windows)
        if tasks is None:
            return Evaluation(tuple(scored), (), bits, sources)
        with _task_sets(sources["tasks"]) as (folder, further):
            answers = evaluate_tasks(loaded, own, folder, batch_size, further, questions)
    return Evaluation((*accuracy_rows(answers), *scored), tuple(answers.outcomes), bits, sources)


@contextmanager
def _to_score(model: PreTrainedModel | PrunedModel | str | Path, base: Base) -> Iterator[PreTrainedModel]:
    """The model that is scored; one in memory is as it was afterwards."""
    if isinstance(model, PrunedModel):
        loaded = model.load()
    else:
        loaded = base.loaded() if isinstance(base.source, Path) else base.source
    with frozen(loaded) as held:
        yield held


def source_of(given: str | Path, of_the_miniature: dict[str, str]) -> dict[str, str]:
    """What a configuration would say of a file or folder, or of the miniature's own."""
    if given == MINIATURE:
        return {"source": "bundled"} | of_the_miniature
    return {"source": "path", "path": str(given)}


def _documents(source: dict[str, str]) -> list[str]:
    """The documents of a file, or the miniature's test text."""
    with tempfile.TemporaryDirectory() as folder:
        fetch_text(source, Path(folder))
        tables = [pq.read_table(path, columns=["text"]) for path in sorted(Path(folder).iterdir())]
        return [row or "" for table in tables for row in table.column("text").to_pylist()]


@contextmanager
def _task_sets(source: dict[str, str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with the sets, checked, and the definitions of tasks beyond the six."""
    with tempfile.TemporaryDirectory() as folder:
        facts = fetch_tasks(source, Path(folder))
        yield Path(folder), facts.get("definitions", {})
