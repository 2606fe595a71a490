"""MaskLLM (arXiv 2409.17481): learn which two of four weights stay, end to end, with the weights frozen.

    min over theta of  E_M[ L_LM(W * M) ] - lambda (1 - t/T) sum ||W * M||_F^2

with one categorical gate over the six 2:4 patterns per group (`gates_pattern.py`). Hardening takes the likeliest
pattern of each group, so every matrix meets 2:4, and with it 50 %, exactly.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from pydantic import Field

from leap_repro.checked import Rate, Weight
from leap_repro.prune.learned.declaration import Learned, TrainingOptions
from leap_repro.sparsity.patterns import TWO_FOUR

if TYPE_CHECKING:
    from leap_repro.prune.job import Job
    from leap_repro.prune.learned.trainer import MaskTrainer


class Options(TrainingOptions):
    """MaskLLM's own defaults, where they differ from LEAP's."""

    kappa_start: Rate = Field(100.0, description="scale of the logits at the first step")
    kappa_end: Rate = Field(500.0, description="scale of the logits at the last step")
    weight_decay: Weight = Field(0.1, description="AdamW's weight decay of the logits")
    gradient_clip: Weight = Field(1.0, description="largest norm of the gradient of all logits; 0: no clipping")
    norm_weight: Weight = Field(1e-5, description="λ, weight of the sum of the kept squared norms")
    logit_std: Rate = Field(0.01, description="standard deviation of the logits' initial normal draw")

    @property
    def facts(self) -> dict[str, str]:
        """2:4 in every matrix, and with it its budget."""
        return {"pattern": str(TWO_FOUR), "budget_scope": "tensor"}

    @property
    def sparsity_bounds(self) -> tuple[Fraction, Fraction]:
        return TWO_FOUR.sparsity, TWO_FOUR.sparsity

    @property
    def sparsity_words(self) -> str:
        return "2:4 allows only [0.5]"

    @property
    def logits_per_weight(self) -> float:
        """Six patterns per group of four."""
        return 6 / 4


def trainer(job: Job[Options]) -> MaskTrainer:
    """A categorical gate per group of four weights, and the squared norms as regulariser."""
    from leap_repro.models.prunable import PrunableLinear, prunable_linears
    from leap_repro.prune.learned.gates_pattern import PatternGate, pattern_logits
    from leap_repro.prune.learned.regularise import SquaredNorms
    from leap_repro.prune.learned.trainer import MaskTrainer

    def gate(index: int, linear: PrunableLinear) -> PatternGate:
        start = job.warm_start[linear.name] if job.warm_start is not None else None
        shape = linear.weight.shape[0], linear.weight.shape[1]
        return PatternGate(pattern_logits(linear.name, shape, start, job.seed, index, job.options.logit_std))

    gates = (gate(*pair) for pair in enumerate(prunable_linears(job.model)))
    return MaskTrainer(job, gates, SquaredNorms(job.options.norm_weight))


METHOD = Learned(trainer, options=Options)
