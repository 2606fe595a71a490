"""Zero-shot accuracy on the six tasks, computed by lm-eval itself, with the outcome of every question kept."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from leap_repro.errors import UserError
from leap_repro.evaluate.tasks import write_task_yamls

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Outcome(TypedDict):
    """One question: which task and leaf (MMLU subject) it belongs to, its index there, and whether it was answered."""

    task: str
    leaf: str
    index: int
    question_sha256: str
    correct: int


def evaluate_tasks(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: Path, batch_size: int, further: dict[str, str]
) -> tuple[dict[str, float], list[Outcome]]:
    """{task: accuracy as lm-eval aggregates it (MMLU by question count)} and one outcome per question.

    `further` maps tasks beyond the six to their stock YAMLs; UserError for one that reports no accuracy.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    from leap_repro.evaluate.requests import BatchEncoded

    _compile_templates_once()
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "data"  # `datasets` takes marks in a path for variables, so it is given one without
        plain.symlink_to(data.absolute())
        leaves = write_task_yamls(plain, Path(folder) / "tasks", further)
        tasks = TaskManager(include_defaults=False, include_path=f"{folder}/tasks").load(list(leaves))
        for task in tasks["tasks"].values():
            task.set_config(key="num_fewshot", value=0)
        # What `simple_evaluate` does around this is a report on the machine, which takes seconds for every cell.
        results = evaluate(
            BatchEncoded(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
            task_dict=tasks,
            bootstrap_iters=0,
            log_samples=True,
        )
    for task in leaves:
        if "acc,none" not in results["results"][task]:
            raise UserError(
                f"task {task}: its definition reports no metric `acc`, only {sorted(results['results'][task])}"
            )
    accuracies = {task: results["results"][task]["acc,none"] for task in leaves}
    return accuracies, _outcomes(results["samples"], leaves)


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
        for sample in sorted(samples[leaf], key=lambda sample: sample["doc_id"])
    ]
