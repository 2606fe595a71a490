"""Declarations of methods that train, the options that all of them share, and what follows from these options.

Everything is a pure function of the step, so a resumed training needs only its step number to continue as if it had
never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, TypeVar

from pydantic import Field, model_validator

from leap_repro.checked import (
    Count,
    LearningRate,
    Positive,
    Precision,
    Rate,
    Share,
    Temperature,
    Weight,
    contradiction,
    told,
)
from leap_repro.errors import UserError
from leap_repro.prune.declaration import Declaration, Options, Tokens

if TYPE_CHECKING:
    from leap_repro.prune.job import Job, PrunedCell

MOST_LOST = 0.05
"""The largest share of the steps that a killed training may have to repeat."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FLOAT_BYTES = DTYPE_BYTES["float32"]
SCALE_BYTES = 4 / 256
"""Per 8-bit moment: a float32 for every block (`moments.py`)."""
SCORES_AT_ONCE = {"cpu": 2**26, "cuda": 2**29}
"""Scores over the vocabulary made, or taken to float32, at a time, by type of device: 256 MiB or 2 GiB of float32."""
Schedule = Literal["linear", "constant", "cosine", "exponential"]
AUTO = "auto"
"""Of an option: chosen by the memory of the scale's GPUs (`automatic.py`) before a job is told its options."""
AUTOMATIC = ("masked_weights", "gradient_checkpointing", "gathered", "micro_batch_size")
"""The options that may be so."""
if TYPE_CHECKING:  # to a training it is what was chosen
    MicroBatch = int
    Recompute = bool
else:
    MicroBatch = Annotated[
        Positive | Literal["auto"],
        told("it must be an integer from 1 to 1000000000, or auto"),
    ]
    Recompute = Annotated[bool | Literal["auto"], told("it must be true, false or auto")]


class Relaxation(NamedTuple):
    """How soft the gates of one step are: logit scale kappa (and that of 2:4 patterns), temperature tau, whether the
    forward pass uses the rounded sample while the gradient flows through the soft one, and the type in which Bernoulli
    gates are computed (None: the noise's)."""

    kappa: float
    tau: float
    pattern_kappa: float
    hard: bool = False
    dtype: str | None = None


def scheduled(schedule: Schedule, start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at 1; "constant" stays at `start`."""
    if schedule == "constant":
        return start
    if schedule == "cosine":
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "exponential":
        return start * (end / start) ** progress
    return start + (end - start) * progress


class LoopOptions(Options):
    """The options of every training on the language-modelling loss, whatever it trains."""

    steps: Positive = Field(2000, description="optimiser steps")
    batch_size: Positive = Field(256, description="sequences per step")
    micro_batch_size: MicroBatch = Field(
        8,
        description="sequences per forward pass in each process; changes only rounding, memory and time; auto: chosen "
        "by the scale's `gpu_memory`",
    )
    learning_rate: LearningRate = Field(1e-3, description="peak value; a half cosine follows")
    rate_decay: Literal["cosine", "linear"] = Field(
        "cosine", description="decay after the peak: half a cosine, or linear"
    )
    rate_end: Share = Field(0.0, description="final rate, as a share of the peak")
    warmup_steps: Count = Field(5, description="steps of linear warm-up to the peak")
    beta1: Share = Field(0.9, description="decay rate of AdamW's moments")
    beta2: Share = Field(0.95, description="decay rate of AdamW's moments")
    epsilon: Rate = Field(1e-8, description="AdamW's epsilon, added to the root of the second moment")
    weight_decay: Weight = Field(0.0, description="AdamW's weight decay of the trained values")
    gradient_clip: Weight = Field(0.0, description="largest norm of the gradient of all trained values; 0: no clipping")
    packing: Literal["stream", "grouped"] = Field(
        "stream",
        description="stream: documents in seeded order, each followed by EOS; grouped: as released, in file order, "
        "without EOS, with the rest of every 1,000 dropped",
    )
    checkpoint_every: Positive = Field(
        100, description="steps between checkpoints; at most 5 % of all steps, unless they took over 5 % of the time"
    )
    gradient_checkpointing: Recompute = Field(
        False,
        description="recompute activations and masks in the backward pass; auto: chosen by the scale's `gpu_memory`",
    )
    compiled_blocks: bool = Field(
        False, description="fuse the operations between products with torch.compile; changes rounding"
    )
    state_dtype: Literal[Precision, "int8"] = Field(
        "float32", description="type of the optimiser's two moments; int8: codes with a scale for every 256"
    )

    @model_validator(mode="after")
    def _micro_batches_fill_a_batch(self) -> LoopOptions:
        if self.micro_batch_size != AUTO and self.batch_size % self.micro_batch_size:
            whole = f"it must be a multiple of micro_batch_size, which is {self.micro_batch_size}"
            raise contradiction("batch_size", self.batch_size, whole)
        return self

    @property
    def automatic(self) -> list[str]:
        """The options that are still to be chosen."""
        return [name for name in AUTOMATIC if getattr(self, name, None) == AUTO]

    @property
    def is_late(self) -> bool:
        """Whether the warm-up starts at 0, and not at the first step above it."""
        return False

    @property
    def moment_bytes(self) -> float:
        """Bytes of one of the two moments of a number that is trained."""
        return 1 + SCALE_BYTES if self.state_dtype == "int8" else DTYPE_BYTES[self.state_dtype]

    def rate(self, step: int) -> float:
        """The learning rate: linear warm-up to the peak, then a half cosine, or a line, to `rate_end` of it."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + (not self.is_late)) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.learning_rate * scheduled(self.rate_decay, 1.0, self.rate_end, progress)

    @property
    def checkpoint_steps(self) -> int:
        """Steps between two checkpoints: as asked for, but never so many that 5 % of the steps could be lost."""
        return max(1, min(self.checkpoint_every, int(MOST_LOST * self.steps)))


class WeightOptions(LoopOptions):
    """The options of every training of weights."""

    def lasting_bytes(self, weight: int, width: float) -> float:
        """Bytes per prunable weight that stay in memory beside the model, for weights of `weight` bytes each and a
        residual stream of `width`."""
        raise NotImplementedError


class TrainingOptions(LoopOptions):
    """The options of every learned mask; the defaults are those of LEAP's code."""

    noise: Literal["step", "forward"] = Field(
        "step",
        description="step: noise is drawn once per step for all its micro-batches; forward: for each micro-batch, as "
        "released",
    )
    noise_source: Literal["auto", "generator", "counter"] = Field(
        "auto",
        description="source of random numbers; counter: Philox4x32-10, the same numbers on every device, required by "
        "LEAP's kernels on a GPU; generator: torch's, different numbers on each kind of GPU; auto: counter on a GPU, "
        "generator on a CPU",
    )
    timing: Literal["exact", "as_released"] = Field(
        "exact",
        description="exact: schedules end at the last step, and the warm-up starts above 0; as_released: schedules end "
        "one step later, and the warm-up starts at 0",
    )
    tau_start: Temperature = Field(4.0, description="temperature at the first step")
    tau_end: Temperature = Field(0.05, description="temperature at the last step")
    tau_schedule: Schedule = Field("linear", description="course between the two; constant: stays at tau_start")
    kappa_start: Rate = Field(25.0, description="scale of the logits at the first step")
    kappa_end: Rate = Field(350.0, description="scale of the logits at the last step")
    kappa_schedule: Schedule = Field("linear", description="course between the two")
    hard: bool = Field(
        False,
        description="true: the forward pass uses rounded samples and the gradient uses the soft ones "
        "(straight-through)",
    )
    logits_dtype: Precision = Field("float32", description="type of the logits")
    logits_rounding: Literal["nearest", "stochastic"] = Field(
        "nearest",
        description="rounding of bfloat16 logits after a step; stochastic: up or down at random, so that small steps "
        "are not lost",
    )
    gradients_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="type of the gradients of masked weights, summed over micro-batches; bfloat16 is rounded "
        "stochastically",
    )
    masked_weights: Literal["kept", "remade", "auto"] = Field(
        "kept",
        description="kept: masked weights are computed once per mask and kept in the weights' type; remade: computed "
        "for each use; auto: chosen by the scale's `gpu_memory`",
    )
    gathered: Literal["pass", "step", "auto"] = Field(
        "pass",
        description="how long each of several processes keeps a gathered block; pass: during the block's pass; step: "
        "from its first pass to the end of the step; auto: chosen by the scale's `gpu_memory`",
    )

    @model_validator(mode="after")
    def _chance_rounds_bfloat16(self) -> TrainingOptions:
        if self.logits_rounding == "stochastic" and self.logits_dtype != "bfloat16":
            raise contradiction(
                "logits_rounding", "stochastic", f"logits_dtype must be bfloat16, not {self.logits_dtype}"
            )
        return self

    @model_validator(mode="after")
    def _sums_are_of_several(self) -> TrainingOptions:
        if self.gradients_dtype != "float32" and self.noise == "forward":
            raise contradiction(
                "gradients_dtype", self.gradients_dtype, "no gradients are summed with noise: forward, so leave it out"
            )
        return self

    @property
    def is_late(self) -> bool:
        """As released."""
        return self.timing == "as_released"

    @property
    def keeps_products(self) -> bool:
        """Whether masked weights are kept from a mask's first use to its last."""
        return self.masked_weights == "kept"

    @property
    def keeps_masks(self) -> bool:
        """Whether masks are kept beside them, with what their gradient needs; else they are made again for it."""
        return self.keeps_products and not self.gradient_checkpointing

    @property
    def has_kernels(self) -> bool:
        """Whether there are kernels for its gates on a GPU (`fused.py`): no mask is in memory then."""
        return False

    @property
    def logits_per_weight(self) -> float:
        """How many logits are trained for each prunable weight: what memory and disk go by."""
        return 1.0

    @property
    def logit_bytes(self) -> int:
        """Bytes of a logit."""
        return DTYPE_BYTES[self.logits_dtype]

    @property
    def gradient_bytes(self) -> float:
        """Bytes per prunable weight of gradients: their sums over micro-batches or, at last, those of the logits, which
        take their place matrix by matrix."""
        sums = DTYPE_BYTES[self.gradients_dtype] if self.batch_size > self.micro_batch_size else 0
        return max(sums, self.logits_per_weight * self.logit_bytes)

    @property
    def frozen_mask_bytes(self) -> int:
        """Bytes per prunable weight of masks that lie beside the logits and are not trained."""
        return 0

    def relaxation(self, step: int) -> Relaxation:
        """How soft the gates are at step `step`."""
        progress = self.progress(step)
        kappa = scheduled(self.kappa_schedule, self.kappa_start, self.kappa_end, progress)
        tau = scheduled(self.tau_schedule, self.tau_start, self.tau_end, progress)
        return Relaxation(kappa, tau, pattern_kappa=kappa, hard=self.hard)

    def progress(self, step: int) -> float:
        """0 at step 0, and 1 at the last step, or with timing `as_released` at the step after it."""
        return step / max(self.steps - (not self.is_late), 1)


def tokens_at_once(vocabulary: float, device: str = "cpu") -> int:
    """How many tokens' scores over the vocabulary are made at a time on a type of device."""
    return max(1, int(SCORES_AT_ONCE[device] // max(1, vocabulary)))


class Trainer(Protocol):
    """One training run, of gates or of weights."""

    def train(self, facts: dict[str, Any]) -> PrunedCell:
        """Train to the end; `facts` go into the cell's manifest."""
        ...


LoopOptionsT = TypeVar("LoopOptionsT", bound=LoopOptions)


@dataclass(frozen=True)
class Learned(Declaration[LoopOptionsT]):
    """A method that trains gates or weights on the language-modelling loss.

    Attributes:
        trainer: A function from a job to a Trainer, which trains with the whole model in memory.
    """

    trainer: Callable[[Job[LoopOptionsT]], Trainer]
    _: KW_ONLY
    starts: tuple[str, ...] = ("warm_start",)
    is_shared: bool = True

    @property
    def tokens(self) -> Tokens:
        """The mask-training stream."""
        return "mask_training"

    def tokens_of(self, options: LoopOptionsT) -> Tokens:
        """The mask-training stream, packed as the options say."""
        return "mask_training" if options.packing == "stream" else "mask_training_grouped"

    def run(self, job: Job[LoopOptionsT]) -> PrunedCell:
        """Train to the end; UserError for an option that is still `auto`."""
        for name in job.options.automatic:
            one = "auto needs a scale with gpu_memory: give a value"
            raise UserError(f"{self.name}: options.{name} is {AUTO}; {one}")
        return self.trainer(job).train(dict(job.options.facts))
