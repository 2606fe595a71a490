"""LEAP (arXiv 2605.17289): learn a keep/drop gate per weight, end to end, on the language-modelling loss.

    min over theta of  E_m[ L_LM(W * m) ] + lambda1 |mean(m) - d| - lambda2 (1 - t/T) sum ||W * m||_F / sum ||W||_F

with the weights W frozen and the gates m relaxed (`gates.py`). The budget d is global, so that layers may differ in
density, or every matrix has it for itself. The result is one logit per weight; hardening turns them into a mask.
"""

from __future__ import annotations

from dataclasses import dataclass

from leap_repro.models.prunable import prunable_linears
from leap_repro.prune.gates import BernoulliGate, Gate, bernoulli_logits
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.regularise import BudgetAndNorms
from leap_repro.prune.trainer import MaskTrainer
from leap_repro.prune.training import TrainingOptions, one_of

WHOLE_MODEL = True
"""The loss looks at the whole model at once: it is not streamed from disk."""


@dataclass(frozen=True)
class Options(TrainingOptions):
    """LEAP's own: density_weight (lambda 1), norm_weight (lambda 2), budget ("global", or "layer": per matrix)."""

    density_weight: float = 7.0
    norm_weight: float = 10.0
    budget: str = "global"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("budget", self.budget, ("global", "layer"))


def prune_cell(job: Job) -> PrunedCell:
    """Train the logits from the job's warm start; "<name>.logits" per matrix and one log row per step."""
    scope = "tensor" if job.options.budget == "layer" else "global"
    return trainer(job).train({"pattern": "unstructured", "budget_scope": scope})


def trainer(job: Job) -> MaskTrainer:
    """A Bernoulli gate per weight, and the budget with the norms as regulariser."""
    options: Options = job.options
    gates: list[Gate] = []
    for index, linear in enumerate(prunable_linears(job.model)):
        start = job.warm_start[linear.name] if job.warm_start is not None else None
        gates.append(BernoulliGate(bernoulli_logits(tuple(linear.weight.shape), start, job.seed, index)))
    target, per_matrix = float(1 - job.sparsity), options.budget == "layer"
    return MaskTrainer(job, gates, BudgetAndNorms(target, options.density_weight, options.norm_weight, per_matrix))
