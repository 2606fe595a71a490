"""LEAP (arXiv 2605.17289): learn a keep/drop gate per weight, end to end, on the language-modelling loss.

    min over theta of  E_m[ L_LM(W * m) ] + lambda1 |mean(m) - d| - lambda2 (1 - t/T) sum ||W * m||_F / sum ||W||_F

with the weights W frozen and the gates m relaxed (`gates.py`). The budget d is global, so that layers may differ in
density, or holds for each matrix. The result is one logit per weight; hardening turns the logits into a mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from leap_repro.checked import Count, Precision, Weight
from leap_repro.prune.learned.declaration import Learned, Relaxation, TrainingOptions
from leap_repro.sparsity.patterns import UNSTRUCTURED

if TYPE_CHECKING:
    from leap_repro.prune.job import Job
    from leap_repro.prune.learned.trainer import MaskTrainer


class Options(TrainingOptions):
    """The defaults are those of the public code."""

    renamed: ClassVar[dict[str, str]] = {"looks": "held_out_evaluations"}

    density_weight: Weight = Field(7.0, description="λ₁, weight of the distance to the target density")
    norm_weight: Weight = Field(10.0, description="λ₂, weight of the kept share of the weights' norms")
    gates_dtype: Precision = Field(
        "float32", description="type in which gates are computed; the public code uses bfloat16"
    )
    gumbels: Literal[2, 1] = Field(
        2, description="Gumbel variables in a gate's noise; 2: the difference of two, as released; 1: one"
    )
    norm: Literal["frobenius", "l1"] = Field(
        "frobenius",
        description="frobenius: the kept share of Frobenius norms, as released; l1: the sum of absolute values, "
        "without normalisation",
    )
    budget: Literal["global", "layer"] = Field(
        "global",
        description="global: the density holds for the whole model; layer: for each matrix, in the loss and in "
        "hardening",
    )
    held_out_evaluations: Count = Field(
        0,
        description="number of evaluations of relaxed and hardened masks on held-out text, written to the training log",
    )

    def relaxation(self, step: int) -> Relaxation:
        """How soft the gates are at step `step`, and in which type they are computed."""
        return super().relaxation(step)._replace(dtype=self.gates_dtype)

    @property
    def has_kernels(self) -> bool:
        """For gates in float32 whose noise is counted."""
        return self.gates_dtype == "float32" and self.noise_source != "generator"

    @property
    def facts(self) -> dict[str, str]:
        """One budget for all matrices, unless each has its own."""
        return {"pattern": UNSTRUCTURED, "budget_scope": "tensor" if self.budget == "layer" else "global"}


def trainer(job: Job[Options]) -> MaskTrainer:
    """A Bernoulli gate per weight, and the budget with the norms as regulariser."""
    from leap_repro.models.prunable import PrunableLinear, prunable_linears
    from leap_repro.prune.learned.gates import BernoulliGate, bernoulli_logits
    from leap_repro.prune.learned.regularise import BudgetAndNorms
    from leap_repro.prune.learned.trainer import MaskTrainer

    options = job.options

    def gate(index: int, linear: PrunableLinear) -> BernoulliGate:
        start = job.warm_start[linear.name] if job.warm_start is not None else None
        return BernoulliGate(bernoulli_logits(tuple(linear.weight.shape), start, job.seed, index), options.gumbels)

    gates = (gate(*pair) for pair in enumerate(prunable_linears(job.model)))
    regulariser = BudgetAndNorms(
        float(1 - job.sparsity),
        options.density_weight,
        options.norm_weight,
        per_matrix=options.budget == "layer",
        absolute=options.norm == "l1",
    )
    return MaskTrainer(job, gates, regulariser, options.held_out_evaluations)


METHOD = Learned(trainer, options=Options, hardenings=("exact", "threshold"))
