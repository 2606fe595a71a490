"""What every training on the language-modelling loss has in common, whatever it trains: its batches, its optimiser, its
log, its checkpoints. A step is the trainer's own.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.load import best_device
from leap_repro.portable import instructions
from leap_repro.progress import Progress
from leap_repro.prune.job import Job
from leap_repro.prune.learned import checkpoint, processes
from leap_repro.prune.learned.adamw import AdamW
from leap_repro.prune.learned.gates import source_on
from leap_repro.prune.learned.loss import LanguageLoss
from leap_repro.prune.learned.stochastic_rounding import CHANCES
from leap_repro.store.tokens import batch_indices

log = logging.getLogger(__name__)
LONG_SAVE = 1.0
"""Seconds. Checkpoints that are written faster cost too little to be spared."""
MOST_SAVING = 0.05
"""The largest share of its time that a training spends on long checkpoints."""


class Loop(ABC):
    """One training run; nothing outside it changes but checkpoints. `columns` are those of its log, a row per step."""

    columns: tuple[str, ...]

    def __init__(self, job: Job) -> None:
        self.checkpoints = job.checkpoints
        self.model, self.tokens_NT, self.options, self.seed = job.model, job.required_tokens(), job.options, job.seed
        self.device = best_device()
        self.rows: list[dict[str, float]] = []
        self.saved_at, self.save_seconds = time.monotonic(), 0.0

    @property
    def source(self) -> str:
        """Where random numbers come from."""
        return source_on(self.device)

    def _prepare(self, chance: bool = False) -> None:
        """The optimiser of all that `trained` names, and the loss; `chance`: the optimiser rounds by it."""
        options = self.options
        self.optimizer = AdamW(
            list(self.trained().values()),
            (options.beta1, options.beta2),
            options.weight_decay,
            getattr(torch, options.state_dtype),
            epsilon=options.epsilon,
            chance=chance,
            seed=self.seed,
            chances=CHANCES[self.source],
        )
        self.language_loss = LanguageLoss(self.model, options.micro_batch_size * self.tokens_NT.shape[1])

    @abstractmethod
    def trained(self) -> dict[str, nn.Parameter]:
        """What the optimiser changes, each by its matrix's number, a dot and its own name."""

    @abstractmethod
    def step(self, number: int) -> dict[str, float]:
        """One optimiser step, without any state but what is trained and its moments; returns its log row."""

    def run(self, checkpoints: Path | None) -> list[dict[str, float]]:
        """Train to the end, resuming from `checkpoints` if it holds a state; returns one log row per step."""
        done = self._resume(checkpoints)
        progress = Progress("steps", self.options.steps, done)
        if self.device.type == "cpu":
            log.info(instructions.in_words(self.model.dtype))
        for number in range(done, self.options.steps):
            self.rows.append(self.step(number))
            if processes.rank() == 0:
                progress.report(number + 1, in_words(self.rows[-1]))
            if checkpoints and self._is_due(number + 1):
                self._save(checkpoints)
        return self.rows

    def batch_of(self, number: int) -> int:
        """Which batch of the stream step `number` reads."""
        return number

    def _micro_batches(self, number: int) -> list[Tensor]:
        """This process's share of the step's micro-batches: every count-th."""
        size, count = self.options.micro_batch_size, processes.count()
        batch = self.batch_of(number)
        micro = batch_indices(batch, self.options.batch_size, len(self.tokens_NT), self.seed).split(size)
        if len(micro) % count:
            raise UserError(f"{len(micro)} micro-batches per step cannot be shared by {count} processes")
        return list(micro[processes.rank() :: count])

    def _state(self, steps: int) -> dict[str, Tensor]:
        """Every tensor that a step reads and changes, by name: what is trained, moments, and room for the log of
        `steps`."""
        trained = self.trained()
        moments = {
            name: processes.shard_of(tensor, trained[".".join(name.split(".")[:2])])
            for name, tensor in self.optimizer.state([*trained]).items()
        }
        room = torch.zeros(steps, len(self.columns), dtype=torch.float64)
        return {f"{name}.trained": leaf for name, leaf in trained.items()} | moments | {"log": room}

    def _is_due(self, done: int) -> bool:
        """Whether to write a checkpoint after `done` steps. The first process decides, because clocks differ."""
        if done % self.options.checkpoint_steps or done == self.options.steps:
            return False
        pause = self.save_seconds / MOST_SAVING if self.save_seconds > LONG_SAVE else 0.0
        return processes.said_by_first(lambda: time.monotonic() - self.saved_at >= pause)

    def _save(self, folder: Path) -> None:
        """Write what is trained, its moments and the log so far, every process its own shards."""
        started = time.monotonic()
        state = self._state(len(self.rows))
        for kept, row in zip(state["log"], self.rows, strict=True):
            kept.copy_(torch.tensor([row[name] for name in self.columns], dtype=torch.float64))
        checkpoint.save(folder, len(self.rows), state)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - started

    def _resume(self, folder: Path | None) -> int:
        """Load the newest whole state in `folder`, if any; the number of steps already done."""
        done = processes.said_by_first(lambda: checkpoint.newest(folder)) if folder else None
        if folder is None or not done:
            return 0
        state = self._state(done)
        checkpoint.load(folder, done, state)
        rows = (dict(zip(self.columns, row.tolist(), strict=True)) for row in state["log"])
        self.rows = [{**row, "step": int(row["step"])} for row in rows]
        log.info("resumed after step %d of %d", done, self.options.steps)
        return done


def finite(row: dict[str, float]) -> dict[str, float]:
    """The log row of a step; UserError if its loss is none."""
    if not math.isfinite(row["loss"]):
        raise UserError(f"the loss of step {row['step']} is {row['loss']}: the training has diverged")
    return row


def in_words(row: dict[str, float]) -> str:
    """What a log's reader wants to know of a step: its loss, and the density of masks."""
    loss = f"loss {row['loss_lm']:.3f}"
    if "density_relaxed" not in row:
        return loss
    return f"{loss}, density {row['density_relaxed']:.3f} ({row['density_hard']:.3f} hard)"
