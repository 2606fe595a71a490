"""The options that every learned mask shares, and the schedules that follow from them: all pure functions of the step.

Nothing here has a state, so a resumed training needs only its step number to go on as if it had never stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.models.load import DTYPES
from leap_repro.prune.gates import Relaxation
from leap_repro.seeds import named_seed

MOST_LOST = 0.05
"""The largest share of the steps that a killed training may have to repeat."""


def _linear(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def _constant(start: float, end: float, progress: float) -> float:
    return start


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def _exponential(start: float, end: float, progress: float) -> float:
    return start * (end / start) ** progress


SCHEDULES = {"linear": _linear, "constant": _constant, "cosine": _cosine, "exponential": _exponential}


@dataclass(frozen=True)
class TrainingOptions:
    """What every learned mask may set; the defaults are those of LEAP's code.

    steps; batch_size (sequences per step) in micro-batches of micro_batch_size (sequences per forward pass);
    learning_rate (peak), warmup_steps, beta1, beta2, weight_decay, gradient_clip (norm over all logits; 0: none);
    tau_start, tau_end, tau_schedule and the same of kappa (`SCHEDULES`); hard (straight-through samples);
    checkpoint_every (steps, at most 5 % of all); gradient_checkpointing (keep neither a block's activations nor masks,
    make them again in the backward pass); logits_dtype, state_dtype (of the optimiser's moments).
    """

    steps: int = 2000
    batch_size: int = 256
    micro_batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 5
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0
    gradient_clip: float = 0.0
    tau_start: float = 4.0
    tau_end: float = 0.05
    tau_schedule: str = "linear"
    kappa_start: float = 25.0
    kappa_end: float = 350.0
    kappa_schedule: str = "linear"
    hard: bool = False
    checkpoint_every: int = 100
    gradient_checkpointing: bool = False
    logits_dtype: str = "float32"
    state_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.batch_size % self.micro_batch_size:
            raise UserError(
                f"batch_size {self.batch_size} must be a multiple of micro_batch_size {self.micro_batch_size}"
            )
        for key, allowed in (
            ("tau_schedule", SCHEDULES),
            ("kappa_schedule", SCHEDULES),
            ("logits_dtype", DTYPES),
            ("state_dtype", DTYPES),
        ):
            one_of(key, getattr(self, key), tuple(allowed))

    def relaxation(self, step: int) -> Relaxation:
        """How soft the gates of step `step` are."""
        kappa = self.scheduled(self.kappa_schedule, self.kappa_start, self.kappa_end, step)
        tau = self.scheduled(self.tau_schedule, self.tau_start, self.tau_end, step)
        return Relaxation(kappa, tau, pattern_kappa=kappa, hard=self.hard)

    def scheduled(self, schedule: str, start: float, end: float, step: int) -> float:
        """From `start` at step 0 to `end` at the last step; "constant" stays at `start`."""
        return SCHEDULES[schedule](start, end, step / max(self.steps - 1, 1))

    def rate(self, step: int) -> float:
        """The learning rate: linear warm-up to the peak, then a half cosine to zero."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    @property
    def checkpoint_steps(self) -> int:
        """Steps between two checkpoints: as asked for, but never so many that 5 % of the steps could be lost."""
        return max(1, min(self.checkpoint_every, int(MOST_LOST * self.steps)))


def one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """UserError naming key and value unless the value is allowed."""
    if value not in allowed:
        raise UserError(f"{key} is {value!r}; allowed are {', '.join(allowed)}")


def batch_indices(step: int, batch_size: int, sequences: int, seed: int) -> Tensor:
    """Which sequences step `step` reads: one seeded permutation per pass over the data, no state to save."""
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    passes = positions // sequences
    order = {
        int(p): torch.randperm(sequences, generator=torch.Generator().manual_seed(named_seed("order", seed, int(p))))
        for p in passes.unique()
    }
    return torch.stack([order[int(p)][i % sequences] for p, i in zip(passes, positions, strict=True)])
