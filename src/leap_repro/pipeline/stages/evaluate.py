"""`python -m leap_repro.pipeline evaluate`: six zero-shot tasks and perplexity of one hardened cell.

Writes `metrics.parquet` (one row per metric, with its protocol) and `outcomes.parquet` (one row per question).
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from leap_repro.evaluate.perplexity import evaluate_perplexity
from leap_repro.evaluate.zero_shot import Answers, evaluate_tasks
from leap_repro.models.cell import apply_cell
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.models.shares import Shares, shares_of
from leap_repro.pipeline.provenance import provenance
from leap_repro.portable import use_portable_kernels
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.questions import TASKS, mmlu_subjects
from leap_repro.store.texts import read_texts

log = logging.getLogger(__name__)


def accuracy_rows(answers: Answers) -> list[dict[str, Any]]:
    """One row per task (percent) and one for the plain mean of the six; standard errors are binomial over the questions
    that were asked."""
    rows = []
    for task, accuracy in answers.accuracies.items():
        count = sum(outcome["task"] == task for outcome in answers.outcomes)
        stderr = math.sqrt(accuracy * (1 - accuracy) / max(count - 1, 1))
        rows.append(_row(task, "acc", 100 * accuracy, 100 * stderr, count, _protocol(task, count, answers)))
    six = [row for row in rows if row["task"] in TASKS]
    mean = sum(row["value"] for row in six) / len(six)
    stderr = math.sqrt(sum(row["stderr"] ** 2 for row in six)) / len(six)
    rows.append(_row("average", "acc", mean, stderr, sum(row["n"] for row in six), "mean of the six tasks"))
    return rows


def _protocol(task: str, asked: int, answers: Answers) -> str:
    """How a task was asked, with what was left out: a mean over a part is not what others report."""
    held = answers.held[task]
    if asked < held:
        return f"zero-shot, {asked} of {held} questions"
    if task != "mmlu":
        return "zero-shot"
    subjects, all_subjects = {o["leaf"] for o in answers.outcomes if o["task"] == task}, mmlu_subjects()
    part = len(subjects) < len(all_subjects)
    return f"zero-shot, {len(subjects)} of {len(all_subjects)} subjects" if part else "zero-shot"


def perplexity_rows(model: Any, tokenizer: Any, texts: list[str], arguments: argparse.Namespace) -> list[dict]:
    """One row per window length; n counts windows."""
    rows = []
    for length in arguments.lengths:
        result = evaluate_perplexity(model, tokenizer, texts, length, arguments.batch_size, arguments.windows)
        part = f", first {result.windows} of {result.held} windows" if result.windows < result.held else ""
        protocol = f"length {length}, BOS {result.bos}, {result.tokens} tokens{part}"
        rows.append(_row("perplexity", f"perplexity@{length}", result.value, result.stderr, result.windows, protocol))
    return rows


def _row(task: str, metric: str, value: float, stderr: float, count: int, protocol: str) -> dict[str, Any]:
    return {"task": task, "metric": metric, "value": value, "stderr": stderr, "n": count, "protocol": protocol}


def dropped_shares(shares: Shares, kept: int) -> dict[str, float]:
    """What the mask drops, as a share of the prunable weights, of all in the decoder blocks, and of the model's."""
    dropped = shares.prunable - kept
    return {
        "sparsity_of_prunable": dropped / shares.prunable,
        "sparsity_of_blocks": dropped / shares.block_parameters,
        "sparsity_of_model": dropped / shares.parameters,
    }


def main(arguments: argparse.Namespace) -> None:
    """Load model and cell, check the counts, evaluate, write."""
    use_portable_kernels(arguments.dtype)
    names = ("model", "cell", "tasks", "text")
    sources = {name: Artifact.read(getattr(arguments, name)) for name in names}
    scoring = ("lengths", "windows", "questions", "batch_size", "dtype")
    parameters = {name: getattr(arguments, name) for name in scoring}
    origin = provenance(("leap_repro.pipeline.stages.evaluate",), parameters, sources)
    folder = sources["model"].verified_payload()
    model, tokenizer = load_model(folder, arguments.dtype), load_tokenizer(folder)
    kept = apply_cell(model, sources["cell"])
    log.info("%s keeps %d of %d weights", sources["cell"].facts["cell"], kept, sources["cell"].facts["prunable"])
    texts = read_texts(sources["text"])
    with torch.inference_mode():
        rows = perplexity_rows(model, tokenizer, texts, arguments)
        tasks, further = sources["tasks"].verified_payload(), sources["tasks"].facts.get("definitions", {})
        answers = evaluate_tasks(model, tokenizer, tasks, arguments.batch_size, further, arguments.questions)
    rows = accuracy_rows(answers) + rows
    with writing(arguments.output, origin) as (payload, facts):
        pq.write_table(pa.Table.from_pylist(rows), payload / "metrics.parquet")
        pq.write_table(pa.Table.from_pylist(answers.outcomes), payload / "outcomes.parquet")
        facts |= {"cell": sources["cell"].facts["cell"], "kept": kept} | dropped_shares(shares_of(model), kept)


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline evaluate", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of the fetched model")
    parser.add_argument("--cell", required=True, type=Path, help="folder of the hardened cell")
    parser.add_argument("--tasks", required=True, type=Path, help="folder of the fetched task sets")
    parser.add_argument("--text", required=True, type=Path, help="folder of the fetched perplexity text")
    parser.add_argument("--lengths", required=True, type=int, nargs="+", help="perplexity window lengths in tokens")
    parser.add_argument("--windows", type=int, help="score the first so many windows of each length; default: all")
    parser.add_argument("--questions", type=int, help="ask no more of each task, a seeded sample; default: all")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--output", required=True, type=Path)
    return parser
