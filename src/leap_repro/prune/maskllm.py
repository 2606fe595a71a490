"""MaskLLM (arXiv 2409.17481): learn which two of four weights stay, end to end, with the weights frozen.

    min over theta of  E_M[ L_LM(W * M) ] - lambda (1 - t/T) sum ||W * M||_F^2

with one categorical gate over the six 2:4 patterns per group (`gates_pattern.py`). Hardening takes the likeliest
pattern of each group, so every matrix meets 2:4, and with it 50 %, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from leap_repro.errors import UserError
from leap_repro.models.prunable import prunable_linears
from leap_repro.patterns import TWO_FOUR
from leap_repro.prune.gates import Gate
from leap_repro.prune.gates_pattern import PatternGate, pattern_logits
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.regularise import SquaredNorms
from leap_repro.prune.trainer import MaskTrainer
from leap_repro.prune.training import TrainingOptions

WHOLE_MODEL = True
"""The loss looks at the whole model at once: it is not streamed from disk."""


@dataclass(frozen=True)
class Options(TrainingOptions):
    """MaskLLM's own: norm_weight (lambda), logit_std (of the normal draw that the logits start from)."""

    kappa_start: float = 100.0
    kappa_end: float = 500.0
    weight_decay: float = 0.1
    gradient_clip: float = 1.0
    norm_weight: float = 1e-5
    logit_std: float = 0.01


def prune_cell(job: Job) -> PrunedCell:
    """Train the logits from the job's warm start; "<name>.patterns" per matrix and one log row per step."""
    if job.sparsity != TWO_FOUR.sparsity:
        raise UserError(f"maskllm drops 2 of each 4 weights: its sparsity must be 0.5, not {float(job.sparsity):g}")
    return trainer(job).train({"pattern": str(TWO_FOUR), "budget_scope": "tensor"})


def trainer(job: Job) -> MaskTrainer:
    """A categorical gate per group of four weights, and the squared norms as regulariser."""
    gates: list[Gate] = []
    for index, linear in enumerate(prunable_linears(job.model)):
        start = job.warm_start[linear.name] if job.warm_start is not None else None
        shape = tuple(linear.weight.shape)
        gates.append(PatternGate(pattern_logits(linear.name, shape, start, job.seed, index, job.options.logit_std)))
    return MaskTrainer(job, gates, SquaredNorms(job.options.norm_weight))
