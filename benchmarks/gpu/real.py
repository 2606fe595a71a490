"""A real model pruned by LEAP with millions of tokens, beside one-shot methods on the same text.

Every cell is scored alike: the loss of each window of the held-out texts, every question.
"""

from __future__ import annotations

import base64
import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpu.folder import C4, SAMPLED, Prepared, losses_of
from gpu.pairs import Pairs, answers, log_likelihoods
from gpu.rows import Row, Rows
from leap_repro.errors import UserError
from leap_repro.models.prunable import prunable_linears
from leap_repro.prune.job import Job
from leap_repro.prune.learned.held_out import exact_cuts
from leap_repro.prune.learned.trainer import MaskTrainer
from leap_repro.prune.methods import leap
from leap_repro.prune.run import load_method

CALIBRATED = ("wanda", "sparsegpt", "admm")
CALIBRATION_WINDOWS, ALL = 128, "all"
"""Of the training text, for the one-shot methods; ADMM also gets all of it."""
SCHEDULES: dict[str, dict[str, Any]] = {
    "paper": {},
    "cold start": {"tau_start": 0.5, "kappa_start": 100.0},
}
"""Where the annealing begins: the paper's, or where the relaxed model is near the masked one."""
TRAINING = {
    "batch_size": 32,
    "micro_batch_size": 32,
    "learning_rate": 3e-3,
    "noise_source": "counter",
}
KEEP = ".keep"
Masks = dict[str, Tensor]
LOGGED = 20
"""Steps of a training that its row shows."""
CLOCKED = 3
"""Steps after which a training knows how long it will take; the first ones compile."""


class Budget(NamedTuple):
    """One training: the sparsity, the tokens that it reads, and of which text."""

    sparsity: str
    tokens: int
    text: str = C4


class Sizes(NamedTuple):
    """Of the run or of a rehearsal: tokens of a sequence, options over TRAINING, budgets in the
    order in which they are worth their time."""

    length: int
    options: dict[str, Any]
    budgets: tuple[Budget, ...]


FULL = Sizes(
    length=1024,
    options={},
    budgets=(
        Budget("0.6", 16_000_000),
        Budget("0.5", 8_000_000),
        Budget("0.6", 4_000_000),
    ),
)
TINY = Sizes(
    length=64,
    options={"batch_size": 4, "micro_batch_size": 2},
    budgets=(Budget("0.6", 2560), Budget("0.5", 2560), Budget("0.6", 2560, SAMPLED)),
)


@dataclass
class Real:
    """The model, its texts and questions, and what several cells share."""

    prepared: Prepared
    sizes: Sizes
    starts: dict[tuple[str, str], Masks] = field(default_factory=dict)

    @cached_property
    def model(self) -> Any:
        """Dense, in the type of the run."""
        return self.prepared.model()

    @cached_property
    def tokens(self) -> dict[str, np.ndarray]:
        """By name."""
        return self.prepared.tokens()

    @cached_property
    def pairs(self) -> Pairs:
        """The questions."""
        return self.prepared.questions()

    @cached_property
    def window(self) -> int:
        """Tokens of a window of calibration and of a held-out text."""
        return self.prepared.about()["window"]

    def cut(self, text: str, length: int, at_most: int | None = None) -> Tensor:
        """A training text in rows of so many tokens, int64 [rows, length]."""
        train = self.prepared.text(text)
        rows = min(len(train) // length, at_most or len(train))
        return torch.from_numpy(train[: rows * length].astype(np.int64)).view(rows, length)

    def scored(self, model: Any) -> Row:
        """Perplexity and windows' losses by text, accuracy by task in percent, each answer as a bit."""
        texts = {name: ids for name, ids in self.tokens.items() if name != "train"}
        losses = {name: losses_of(model, ids, self.window) for name, ids in texts.items()}
        right = answers(self.pairs, log_likelihoods(model, self.pairs))
        asked = np.bincount(self.pairs.task, minlength=len(self.pairs.tasks))
        counts = np.bincount(self.pairs.task, weights=right, minlength=len(asked))
        shares = dict(zip(self.pairs.tasks, (100 * counts / asked).tolist(), strict=True))
        return {
            "perplexity": {name: math.exp(np.mean(found)) for name, found in losses.items()},
            "accuracy": shares,
            "window_losses": losses,
            "answers": base64.b64encode(np.packbits(right).tobytes()).decode(),
            "task_questions": asked.tolist(),
        }

    def start(self, sparsity: str, text: str) -> Masks:
        """Wanda's mask, which LEAP starts from."""
        if (sparsity, text) not in self.starts:
            windows = self.cut(text, self.window, CALIBRATION_WINDOWS)
            self.starts[sparsity, text] = self.pruned("wanda", sparsity, windows)[1]
        return self.starts[sparsity, text]

    def pruned(self, name: str, sparsity: str, tokens: Tensor | None) -> tuple[Any, Masks]:
        """A pruned copy of the model, and its masks by matrix."""
        method, options = load_method(name, {})
        model = copy.deepcopy(self.model)
        cell = method.prune_cell(Job(model, options, Fraction(sparsity), 0, tokens))
        kept = [name for name in cell.tensors if name.endswith(KEEP)]
        return model, {name.removesuffix(KEEP): cell.tensors[name].cpu() for name in kept}


def real(rows: Rows, tiny: bool, prepared: Prepared, budgets: Sequence[Budget]) -> None:
    """A row for the dense model, for each one-shot method and sparsity, and for each training; of
    `budgets`, or without any of those that Sizes have."""
    study = Real(prepared, TINY if tiny else FULL)
    budgets = budgets or study.sizes.budgets
    rows.measure({"part": "real", "cell": "dense"}, lambda: study.scored(study.model))
    for budget in budgets:
        _one_shot(rows, study, budget)
        for schedule in SCHEDULES:
            key = {"part": "real", "cell": "leap", **budget._asdict(), "schedule": schedule}
            rows.measure(key, partial(_leap_row, rows, study, budget, schedule))


def _one_shot(rows: Rows, study: Real, budget: Budget) -> None:
    """The rivals of a training: on a sample of its text, and ADMM on all of it."""
    key = {"part": "real", "sparsity": budget.sparsity}
    name = "magnitude"
    rows.measure(key | {"cell": name}, partial(_pruned_row, study, name, budget, None))
    for name in CALIBRATED:
        on = {"cell": name, "calibration": CALIBRATION_WINDOWS, "text": budget.text}
        work = partial(_calibrated_row, study, name, budget, CALIBRATION_WINDOWS)
        rows.measure(key | on, work)
    on = {"cell": "admm", "calibration": ALL, "text": budget.text}
    rows.measure(key | on, partial(_calibrated_row, study, "admm", budget, None))


def _calibrated_row(study: Real, name: str, budget: Budget, windows: int | None) -> Row:
    tokens = study.cut(budget.text, study.window, windows)
    return {"calibration_tokens": tokens.numel(), **_pruned_row(study, name, budget, tokens)}


def _pruned_row(study: Real, name: str, budget: Budget, tokens: Tensor | None) -> Row:
    began = time.monotonic()
    model, masks = study.pruned(name, budget.sparsity, tokens)
    seconds = time.monotonic() - began
    return {"seconds": seconds, **_counts(masks), **study.scored(model)}


def _leap_row(rows: Rows, study: Real, budget: Budget, schedule: str) -> Row:
    """UserError as soon as it is known that the training would end after the time that is left."""
    options = TRAINING | study.sizes.options | SCHEDULES[schedule]
    length = study.sizes.length
    steps = budget.tokens // (options["batch_size"] * length)
    if steps <= CLOCKED:
        raise UserError(f"{budget.tokens} tokens are {steps} steps: too few")
    chosen = leap.Options(steps=steps, **options)
    start = study.start(budget.sparsity, budget.text)
    sparsity, text = Fraction(budget.sparsity), study.cut(budget.text, length)
    trainer = leap.trainer(Job(study.model, chosen, sparsity, 0, text, warm_start=start))
    began = time.monotonic()
    speed = _train(trainer, rows)
    seconds = time.monotonic() - began
    masks = _masks(trainer, sparsity)
    logged = trainer.rows[:: max(1, steps // LOGGED)]
    return {
        "steps": steps,
        "length": length,
        "options": options,
        "text_tokens": text.numel(),
        "seconds": seconds,
        "tokens_a_second": chosen.batch_size * length * speed,
        "changed_of_start": _changed(masks, start),
        "losses": [row["loss_lm"] for row in logged],
        "densities": [row["density_relaxed"] for row in logged],
        **_counts(masks),
        **study.scored(_masked(study.model, masks)),
    }


def _train(trainer: MaskTrainer, rows: Rows) -> float:
    """Train to the end; steps a second after the first ones."""
    steps, clocked = trainer.options.steps, 0.0
    for number in range(steps):
        trainer.rows.append(trainer.step(number))
        if number + 1 == CLOCKED - 1:
            clocked = time.monotonic()
        if number + 1 == CLOCKED:
            needed = (steps - CLOCKED) * (time.monotonic() - clocked)
            if needed > rows.left:
                left = f"{rows.left:.0f} s are left"
                raise UserError(f"{steps} steps would take {needed:.0f} s more, {left}")
    return (steps - CLOCKED + 1) / (time.monotonic() - clocked)


def _masks(trainer: MaskTrainer, sparsity: Fraction) -> Masks:
    """The hardened masks, exactly at the budget of all matrices together."""
    cuts, masks = exact_cuts(trainer.layers, sparsity, per_matrix=False), {}
    for layer in trainer.layers:
        name, logits = layer.linear.name, layer.gate.logits["logits"].detach().cpu()
        masks[name] = cuts[name].mask(name, logits)
    return masks


def _masked(model: Any, masks: Masks) -> Any:
    """A copy of the model with its prunable weights masked."""
    sparse = copy.deepcopy(model)
    for linear in prunable_linears(sparse):
        linear.weight.data.mul_(masks[linear.name].to(linear.weight.device))
    return sparse


def _changed(masks: Masks, start: Masks) -> float:
    """The share of the weights that the mask treats otherwise than the start did."""
    other = sum(int((masks[name] != start[name].cpu()).sum()) for name in masks)
    return other / sum(mask.numel() for mask in masks.values())


def _counts(masks: Masks) -> Row:
    kept = sum(int(mask.sum()) for mask in masks.values())
    return {"kept": kept, "prunable": sum(mask.numel() for mask in masks.values())}
