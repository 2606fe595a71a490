"""ELSA (arXiv 2510.01650): train mask and weights together, by ADMM on the language-modelling loss.

    x <- AdamW on  L_LM(x) + lambda/2 ||x - z + u||^2                              `interval` steps, from the dense x
    z <- argmin over sparse z of  sum F (z - x - u)^2                              F: AdamW's second moment of x
    u <- u + x - z

so z keeps, in every matrix, as many of the largest sqrt(F) |x + u| as its budget allows. At the end x is projected so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leap_repro.checked import LearningRate, Positive, Weight
from leap_repro.prune.learned.declaration import FLOAT_BYTES, Learned, WeightOptions, scheduled

if TYPE_CHECKING:
    from leap_repro.prune.job import Job
    from leap_repro.prune.learned.surrogate_free import SurrogateFreeTrainer


class Options(WeightOptions):
    """The default steps and sequences are LEAP's; the other defaults are those of the public code's example."""

    learning_rate: LearningRate = Field(2e-4, description="peak value; a half cosine follows")
    gradient_clip: Weight = Field(
        1.0,
        description="largest norm of the loss's gradient, before the penalty's gradient is added; 0: no clipping",
    )
    penalty: Weight = Field(0.01, description="λ, weight of the squared distance between x and z - u; 0: no penalty")
    penalty_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="linear, cosine: λ rises from 0 to `penalty`, at each projection"
    )
    interval: Positive = Field(32, description="training steps between two projections")
    projection: Literal["fisher", "euclidean"] = Field(
        "fisher", description="fisher: each weight is weighted by AdamW's second moment; euclidean: by magnitude alone"
    )

    def penalty_at(self, step: int) -> float:
        """λ at a step: constant between two projections, above 0 from the first step on, and `penalty` after the
        last."""
        if self.penalty_schedule == "constant":
            return self.penalty
        rounds = math.ceil(self.steps / self.interval)
        return scheduled(self.penalty_schedule, 0.0, self.penalty, (step // self.interval + 1) / rounds)

    def lasting_bytes(self, weight: int, width: float) -> float:
        """Bytes per prunable weight beside the model, whose weights have `weight` each: the mask; z - u, the gradient
        and two moments; float32 weights beside a model of another type."""
        copies = 2 if weight == FLOAT_BYTES else 3
        return 1 + FLOAT_BYTES * copies + 2 * self.moment_bytes


def trainer(job: Job[Options]) -> SurrogateFreeTrainer:
    """Every matrix's weights, of which each projection keeps its share."""
    from leap_repro.prune.layerwise.select import drop_smallest_in_matrix
    from leap_repro.prune.learned.surrogate_free import SurrogateFreeTrainer

    return SurrogateFreeTrainer(job, lambda scores: drop_smallest_in_matrix(scores, job.sparsity))


METHOD = Learned(trainer, options=Options, moves_weights=True, starts=(), is_shared=False)
