"""Zero-shot questions as tokens: written where lm-eval is, answered where it is not.

`noted_pairs` asks lm-eval for the requests that the pipeline would ask, and notes the tokens of
each, with the choice that is right by the task's own metric. `answers` scores them as lm-eval does:
the log-likelihood of a choice's tokens behind the context, the largest wins, the first of equals.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.models.head import Head
from leap_repro.models.load import vocabulary_size

TOKENS_AT_ONCE = 2**16
"""Of a batch of contexts, the padding counted."""
SCORES_AT_ONCE = 2**28
"""Over the vocabulary: a gigabyte in float32."""


@dataclass(frozen=True)
class Pairs:
    """Requests one after the other, question by question. `tokens`: of contexts and choices;
    `lengths` [requests, 2]: tokens of each; `question` [requests]: its number; `gold`, `task`
    [questions]: the right choice, the task's place in `tasks`."""

    tokens: np.ndarray
    lengths: np.ndarray
    question: np.ndarray
    gold: np.ndarray
    task: np.ndarray
    tasks: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Context and choice of each request."""
        ends = self.lengths.sum(axis=1, dtype=np.int64).cumsum()
        for end, (context, choice) in zip(ends, self.lengths.tolist(), strict=True):
            middle = end - choice
            yield self.tokens[middle - context : middle], self.tokens[middle:end]

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, as arrays by name."""
        return vars(self) | {"tasks": np.array(self.tasks)}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> Pairs:
        """From those arrays."""
        return cls(**arrays | {"tasks": tuple(arrays["tasks"].tolist())})


def noted_pairs(model: Any, tokenizer: Any, data: Path, questions: int | None) -> Pairs:
    """The requests of the task sets under `data`, or of so many `questions` of each task."""
    from lm_eval.tasks import TaskManager

    from leap_repro.evaluate.requests import BatchEncoded
    from leap_repro.evaluate.tasks import write_task_yamls
    from leap_repro.evaluate.zero_shot import sample

    class Noting(BatchEncoded):
        """Notes what it is asked in place of scoring it."""

        def _loglikelihood_tokens(self, requests: list[Any], *_: Any, **__: Any) -> list[Any]:
            self.noted = list(zip(self.asked, requests, strict=True))
            return [(0.0, False)] * len(requests)

    with tempfile.TemporaryDirectory() as folder:
        leaves = write_task_yamls(data.absolute(), Path(folder) / "tasks")
        manager = TaskManager(include_defaults=False, include_path=f"{folder}/tasks")
        found = manager.load(list(leaves))["tasks"]
        requests = []
        for task, members in leaves.items():
            held = {leaf: len(found[leaf].eval_docs) for leaf in members}
            for leaf, indices in sample(task, held, questions).items():
                found[leaf].set_config(key="num_fewshot", value=0)
                found[leaf].build_all_requests(samples=indices if questions else None)
                requests += found[leaf].instances
        task_of = {leaf: task for task, members in leaves.items() for leaf in members}
        noting = Noting(model, tokenizer, task_of)
        noting.loglikelihood(requests, disable_tqdm=True)
    return _packed(noting, found, tuple(leaves))


def _packed(noting: Any, found: dict[str, Any], tasks: tuple[str, ...]) -> Pairs:
    """The noted requests, question by question, cut from the left to the model's positions."""
    questions: dict[tuple[str, int], list[Any]] = {}
    for request, encoded in noting.noted:
        questions.setdefault((request.task_name, request.doc_id), []).append((request, encoded))
    tokens, lengths, question, gold, task = [], [], [], [], []
    for number, ((leaf, _), members) in enumerate(questions.items()):
        members.sort(key=lambda pair: pair[0].idx)
        for _, (_, context, choice) in members:
            kept = context[-(noting.max_length + 1 - len(choice)) :]
            tokens += [*kept, *choice]
            lengths.append((len(kept), len(choice)))
            question.append(number)
        gold.append(_right_choice(found[leaf], members[0][0].doc, len(members)))
        task.append(tasks.index(noting.task_of[leaf]))
    return Pairs(
        np.array(tokens, dtype=np.uint16),
        np.array(lengths, dtype=np.uint16),
        np.array(question, dtype=np.int32),
        np.array(gold, dtype=np.uint8),
        np.array(task, dtype=np.uint8),
        tasks,
    )


def _right_choice(task: Any, document: dict[str, Any], choices: int) -> int:
    """The choice that the task's own metric calls right; UserError unless it is one."""
    right = []
    for one in range(choices):
        likeliest = [(float(choice == one), False) for choice in range(choices)]
        if task.process_results(document, likeliest)["acc"] == 1:
            right.append(one)
    if len(right) != 1:
        name = task.config.task
        raise UserError(f"a question of {name} has {len(right)} right choices, it must have one")
    return right[0]


@torch.inference_mode()
def log_likelihoods(model: Any, pairs: Pairs) -> Tensor:
    """Of each request's choice behind its context, float32 sums in float64 [requests].

    Contexts that several choices share run once. UserError for a model without a head of its own.
    """
    head = Head.of(model)
    if head is None:
        name = type(model).__name__
        raise UserError(f"{name} gives no scores of single tokens: it cannot be asked")
    asked: dict[bytes, list[tuple[int, int, np.ndarray]]] = {}
    for number, (context, choice) in enumerate(pairs):
        given = np.concatenate([context, choice[:-1]])
        asked.setdefault(given.tobytes(), []).append((number, len(context) - 1, choice))
    inputs = sorted(asked, key=len, reverse=True)
    found = torch.zeros(len(pairs.lengths), dtype=torch.float64)
    itemsize = pairs.tokens.itemsize
    while inputs:
        count = max(1, TOKENS_AT_ONCE // (len(inputs[0]) // itemsize))
        batch, inputs = inputs[:count], inputs[count:]
        given = [np.frombuffer(one, pairs.tokens.dtype) for one in batch]
        _score(head, given, [asked[one] for one in batch], found)
    return found


def _score(head: Head, inputs: list[np.ndarray], asked: list[Any], found: Tensor) -> None:
    """Add to `found` the log-probabilities of the tokens that are asked for behind these inputs."""
    device = next(head.model.parameters()).device
    longest = max(map(len, inputs))
    ids = np.zeros((len(inputs), longest), dtype=np.int64)  # no token sees what fills up
    places, targets, owners = [], [], []
    for row, (given, requests) in enumerate(zip(inputs, asked, strict=True)):
        ids[row, : len(given)] = given
        for number, start, choice in requests:
            places += range(row * longest + start, row * longest + start + len(choice))
            targets += choice.tolist()
            owners += [number] * len(choice)
    states = head.states(torch.from_numpy(ids).to(device)).flatten(0, 1)
    states = states[torch.tensor(places, device=device)]
    wanted = torch.tensor(targets, device=device)[:, None]
    rows = max(1, SCORES_AT_ONCE // vocabulary_size(head.model))
    parts = [
        head.scores(some).float().log_softmax(dim=-1).gather(1, index)[:, 0]
        for some, index in zip(states.split(rows), wanted.split(rows), strict=True)
    ]
    found.index_add_(0, torch.tensor(owners), torch.cat(parts).double().cpu())


def answers(pairs: Pairs, found: Tensor) -> np.ndarray:
    """Whether each question's likeliest choice is right, bool [questions]; of equal ones the first."""
    starts = np.searchsorted(pairs.question, np.arange(len(pairs.gold) + 1))
    likeliest = [int(np.argmax(found[a:b].numpy())) for a, b in pairwise(starts)]
    return np.array(likeliest) == pairs.gold
