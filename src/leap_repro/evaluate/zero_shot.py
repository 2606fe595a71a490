"""Zero-shot accuracy on the six tasks, computed by lm-eval itself, with the outcome of every question kept."""

from __future__ import annotations

import os
import random
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from leap_repro.errors import UserError
from leap_repro.evaluate.tasks import write_task_yamls
from leap_repro.models.tokenizing import left_out
from leap_repro.seeds import named_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Outcome(TypedDict):
    """One question: which task and leaf (MMLU subject) it belongs to, its index there, and whether it was answered."""

    task: str
    leaf: str
    index: int
    question_sha256: str
    correct: int


@dataclass(frozen=True)
class Answers:
    """{task: accuracy as lm-eval aggregates it (MMLU by question count)}, an outcome per question that was asked,
    {task: questions that its sets hold}, {task: (questions that lost their beginning, tokens that were left of them)},
    and the tokens that the tokenizer would have put behind every text."""

    accuracies: dict[str, float]
    outcomes: list[Outcome]
    held: dict[str, int]
    cut: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_out: str = ""


def evaluate_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Path,
    batch_size: int,
    further: dict[str, str],
    questions: int | None = None,
) -> Answers:
    """Ask the task sets under `data`, or of each task no more than `questions`, the same ones of every model.

    `further` maps tasks beyond the six to their stock YAMLs; UserError for one that reports no accuracy, and for a task
    of which too many questions are longer than the model's positions.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    from leap_repro.evaluate.requests import BatchEncoded

    _compile_templates_once()
    with tempfile.TemporaryDirectory() as folder, _no_bars():
        plain = Path(folder) / "data"  # `datasets` takes marks in a path for variables, so it is given one without
        plain.symlink_to(data.absolute())
        leaves = write_task_yamls(plain, Path(folder) / "tasks", further)
        tasks = TaskManager(include_defaults=False, include_path=f"{folder}/tasks").load(list(leaves))
        held = {leaf: len(task.eval_docs) for leaf, task in tasks["tasks"].items()}
        asked = {
            leaf: indices
            for task, members in leaves.items()
            for leaf, indices in sample(task, {leaf: held[leaf] for leaf in members}, questions).items()
        }
        for task in tasks["tasks"].values():
            task.set_config(key="num_fewshot", value=0)
        # What `simple_evaluate` does around this is a report on the machine, which takes seconds for every cell.
        task_of = {leaf: task for task, members in leaves.items() for leaf in members}
        scored = BatchEncoded(model, tokenizer, task_of, batch_size=batch_size)
        results = evaluate(
            scored,
            task_dict=tasks | {"tasks": {leaf: task for leaf, task in tasks["tasks"].items() if leaf in asked}},
            samples=None if questions is None else asked,
            bootstrap_iters=0,
            log_samples=True,
        )
    for task in leaves:
        if "acc,none" not in results["results"][task]:
            raise UserError(
                f"task {task}: its definition reports no metric `acc`, only {sorted(results['results'][task])}"
            )
    return Answers(
        {task: results["results"][task]["acc,none"] for task in leaves},
        _outcomes(results["samples"], leaves),
        {task: sum(held[leaf] for leaf in members) for task, members in leaves.items()},
        {task: (cut.questions, cut.tokens) for task, cut in scored.cut.items()},
        left_out(scored.tokenizer),
    )


def stay_offline() -> None:
    """Let `datasets`, which is not imported yet, ask no hub: for a process that does nothing else, since it holds until
    its end."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


@contextmanager
def _no_bars() -> Iterator[None]:
    """Within it `datasets` draws no bar for each split of each of 57 subjects."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def sample(task: str, held: Mapping[str, int], questions: int | None) -> dict[str, list[int]]:
    """{leaf: indices of the questions that are asked, ascending} of a task whose leaves hold `held` questions.

    All of them if `questions` is None or more; else so many, drawn without replacement from all leaves together (so
    MMLU's mean over questions is unbiased), by a seed of the task's name alone. Leaves without one are not in.
    """
    leaves, ends = list(held), list(accumulate(held.values()))
    chosen = range(ends[-1])
    if questions is not None and questions < ends[-1]:
        chosen = sorted(random.Random(named_seed(f"questions of {task}")).sample(chosen, questions))
    found: dict[str, list[int]] = {}
    for index in chosen:
        place = bisect_right(ends, index)
        found.setdefault(leaves[place], []).append(index - ends[place] + held[leaves[place]])
    return found


def _compile_templates_once() -> None:
    """lm-eval compiles a task's few templates anew for each question, a third of the time that a tiny model takes."""
    from lm_eval import utils

    if not hasattr(utils.env.from_string, "cache_info"):
        utils.env.from_string = cache(utils.env.from_string)


def _outcomes(samples: dict[str, list[dict]], leaves: dict[str, list[str]]) -> list[Outcome]:
    return [
        Outcome(
            task=task,
            leaf=leaf,
            index=int(sample["doc_id"]),
            question_sha256=sample["doc_hash"],
            correct=int(sample["acc"]),
        )
        for task, members in leaves.items()
        for leaf in members
        for sample in sorted(samples.get(leaf, []), key=lambda sample: sample["doc_id"])
    ]
