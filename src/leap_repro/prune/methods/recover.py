"""Recovery: train the weights that another method's mask keeps, on the mask-training text.

    min over W of  L_LM(M * W)        M fixed

The mask does not change, so budget and pattern are the parent's; only values of kept weights are new. With LEAP's
number of tokens it is the baseline for LEAP's training. `parent` names the method whose hardened cell it continues
from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from leap_repro.checked import Count, LearningRate, Rate, Weight
from leap_repro.prune.learned.declaration import FLOAT_BYTES, Learned, WeightOptions

if TYPE_CHECKING:
    from leap_repro.prune.job import Job
    from leap_repro.prune.learned.recovery import RecoveryTrainer


class Options(WeightOptions):
    """The default steps and sequences are LEAP's."""

    learning_rate: LearningRate = Field(1e-4, description="peak value; a half cosine follows")
    gradient_clip: Weight = Field(1.0, description="largest norm of the gradient of all trained values; 0: no clipping")
    first_batch: Count = Field(
        0,
        description="first batch of the stream to read, counted from 0; skip the batches that the parent's training "
        "read if both share one budget",
    )
    lora_rank: Count = Field(
        0, description="rank of the LoRA pair trained for each matrix; 0: all kept weights are trained"
    )
    lora_alpha: Rate = Field(16.0, description="the LoRA pair is scaled by alpha / rank")

    def trained_per_weight(self, width: float) -> float:
        """How many numbers are trained for each prunable weight of a model that is so wide: all, or of the 12 D^2 of a
        block with matrices of D x D and D x 4 D a pair for each."""
        return 1.5 * self.lora_rank / width if self.lora_rank else 1.0

    def lasting_bytes(self, weight: int, width: float) -> float:
        """Bytes per prunable weight beside the model, whose weights have `weight` each: masks; what is trained, with
        two moments and its gradient; the parent's weights beside a pair."""
        copies = 1 if not self.lora_rank and weight == FLOAT_BYTES else 2  # a model in float32 is its own master
        trained = self.trained_per_weight(width) * (FLOAT_BYTES * copies + 2 * self.moment_bytes)
        return 1 + trained + weight * (self.lora_rank > 0)


def trainer(job: Job[Options]) -> RecoveryTrainer:
    """Every matrix's kept weights, or its pair."""
    from leap_repro.prune.learned.recovery import RecoveryTrainer

    return RecoveryTrainer(job)


METHOD = Learned(trainer, options=Options, moves_weights=True, starts=("parent",), is_shared=False)
