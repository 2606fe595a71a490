"""What an evaluation says: a row per metric, with standard error, number of questions or windows, and protocol."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from leap_repro.evaluate.perplexity import evaluate_perplexity
from leap_repro.evaluate.zero_shot import Answers
from leap_repro.models.shares import Shares
from leap_repro.store.questions import TASKS, mmlu_subjects

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Row = dict[str, Any]
"""{"task", "metric", "value", "stderr", "n", "protocol"}; accuracies in percent."""


def accuracy_rows(answers: Answers) -> list[Row]:
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
    asked, cut = sum(row["n"] for row in six), sum(answers.cut.get(task, (0, 0))[0] for task in TASKS)
    tokens = max((tokens for _, tokens in answers.cut.values()), default=0)
    parts = ["mean of the six tasks", _cut(cut, asked, tokens), _left_out(answers.left_out)]
    rows.append(_row("average", "acc", mean, stderr, asked, ", ".join(part for part in parts if part)))
    return rows


def _protocol(task: str, asked: int, answers: Answers) -> str:
    """How a task was asked, with what was left out: a mean over a part is not what others report."""
    cut, tokens = answers.cut.get(task, (0, 0))
    parts = ["zero-shot", _part(task, asked, answers), _cut(cut, asked, tokens), _left_out(answers.left_out)]
    return ", ".join(part for part in parts if part)


def _part(task: str, asked: int, answers: Answers) -> str:
    held = answers.held[task]
    if asked < held:
        return f"{asked} of {held} questions"
    if task != "mmlu":
        return ""
    subjects, all_subjects = {o["leaf"] for o in answers.outcomes if o["task"] == task}, mmlu_subjects()
    part = len(subjects) < len(all_subjects)
    return f"{len(subjects)} of {len(all_subjects)} subjects" if part else ""


def _cut(cut: int, asked: int, tokens: int) -> str:
    """A question is cut from the left, as lm-eval does it."""
    return f"{cut} of {asked} questions cut to {tokens} tokens" if cut else ""


def _left_out(tokens: str) -> str:
    return f"without the {tokens} that the tokenizer appends" if tokens else ""


def perplexity_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    lengths: Iterable[int],
    batch_size: int,
    windows: int | None = None,
) -> list[Row]:
    """One row per window length, of all windows or the first so many; n counts windows. UserError as
    `evaluate_perplexity`."""
    rows = []
    for length in lengths:
        result = evaluate_perplexity(model, tokenizer, texts, length, batch_size, windows)
        part = f", first {result.windows} of {result.held} windows" if result.windows < result.held else ""
        appended = _left_out(result.left_out)
        protocol = f"length {length}, BOS {result.bos}, {result.tokens} tokens{part}{', ' * bool(appended)}{appended}"
        rows.append(_row("perplexity", f"perplexity@{length}", result.value, result.stderr, result.windows, protocol))
    return rows


def _row(task: str, metric: str, value: float, stderr: float, count: int, protocol: str) -> Row:
    return {"task": task, "metric": metric, "value": value, "stderr": stderr, "n": count, "protocol": protocol}


def dropped_shares(shares: Shares, kept: int) -> dict[str, float]:
    """What the mask drops, as a share of the prunable weights, of all in the decoder blocks, and of the model's."""
    dropped = shares.prunable - kept
    return {
        "sparsity_of_prunable": dropped / shares.prunable,
        "sparsity_of_blocks": dropped / shares.block_parameters,
        "sparsity_of_model": dropped / shares.parameters,
    }
