"""How long a step of a training takes on one GPU, by what it computes and moves: computed, never measured here.

A part takes its operations over the GPU's rate, or its bytes over its bandwidth; the parts come one after another. The
host launches kernels meanwhile, and a step cannot be faster than that. What processes send to each other is not
counted. Where the constants come from stands beside each; docs/scaling.md has what follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from leap_repro.models.sizes import Sizes
from leap_repro.prune.learned.declaration import (
    DTYPE_BYTES,
    FLOAT_BYTES,
    SCORES_AT_ONCE,
    LoopOptions,
    TrainingOptions,
)


@dataclass(frozen=True)
class GPU:
    """Operations a second of large 16-bit products, and bytes a second of a large copy."""

    flops: float
    bandwidth: float


H200 = GPU(790e12, 4.3e12)
"""As reported from one: 0.8 and 0.9 of the data sheet's 989 x 10^12 and 4.8 x 10^12."""
H100 = GPU(0.8 * 989e12, 0.9 * 3.35e12)
"""The data sheet's (SXM, 80 GB), with the same shares: not measured."""

PRODUCTS = ((896, 0.50), (2048, 0.68), (4096, 0.80))
"""Share of that rate which products of a model so wide reach: small matrices fill a GPU badly. Assumed."""
ATTENTION = 0.40
"""The same of attention, forward and backward. Assumed."""
POINTWISE = 0.85
"""Share of the bandwidth that elementwise kernels reach. Assumed."""
LOSS_BYTES = 44
"""For each score: made, taken to float32, its softmax, its gradient. Reported, not counted again."""
LAUNCH_SECONDS = 6e-6
"""Of one kernel, by Python and PyTorch on the host. Assumed."""
BLOCK_LAUNCHES, GATE_LAUNCHES = 180, 45
"""Kernels of a dense block in a micro-batch, forward and backward; and what gates as kernels add that are made for each
use. Reported, not counted again."""
PLAIN_LAUNCHES = 191
"""The same of gates that are made operator by operator."""
LOSS_LAUNCHES = 30
"""Kernels of one part of the loss."""
PLAIN_BYTES, SLOPE_BYTES, AGAIN_BYTES = 68, 86, 44
"""What a gate that is made operator by operator moves for a logit: for one use; for the logit's gradient; for its mask
where that must be made for the gradient alone. Counted: benchmarks/gate_bytes.csv."""
CHANCE_BYTES = 62
"""What a sum in bfloat16, rounded by chance, moves for a weight in a micro-batch; counted operator by operator."""
FUSED = 0.35
"""Share of the bytes of a block's elementwise kernels that are left where torch.compile fuses them. Assumed."""


@dataclass(frozen=True)
class Way:
    """What a step does beside its dense passes. In bytes for each prunable weight: `gate` for each time that a masked
    weight is made, `slope` for the logits' gradient, `sums` of gradients for each micro-batch, `optimiser` for its
    step. `launches`: kernels of a block in a micro-batch; `remade`: masked weights are made for each use, not once a
    step; `again`: the share of a block's products that recompute makes again; `scores` over the vocabulary at a time;
    `pointwise`: the share of elementwise bytes that fused kernels leave.
    """

    gate: float
    slope: float
    sums: float
    optimiser: float
    launches: int
    remade: bool
    again: float
    scores: int
    pointwise: float = 1.0

    @property
    def dense(self) -> Way:
        """The same training of the weights themselves: no gates."""
        return replace(self, gate=0.0, slope=0.0, launches=BLOCK_LAUNCHES, remade=False)


def way_of(sizes: Sizes, options: LoopOptions, weight_dtype: str) -> Way:
    """How this project trains with these options on a GPU, whose weights have this type."""
    weight = DTYPE_BYTES[weight_dtype]
    moments = 4 * options.moment_bytes  # both are read and written
    last = sizes.largest * sizes.blocks / max(sizes.prunable, 1)  # the block's last product is not made again
    dense = Way(
        gate=0.0,
        slope=0.0,
        sums=2 * FLOAT_BYTES,
        optimiser=3 * FLOAT_BYTES + moments + weight,
        launches=BLOCK_LAUNCHES,
        remade=False,
        again=1 - last,
        pointwise=FUSED if options.compiled_blocks else 1.0,
        scores=SCORES_AT_ONCE["cuda"],
    )
    if not isinstance(options, TrainingOptions):
        return dense
    logit, count = options.logit_bytes, options.logits_per_weight
    remade = options.noise == "forward" or not options.keeps_products
    plain, mask_again = not options.has_kernels, not remade and not options.keeps_masks
    return replace(
        dense,
        gate=PLAIN_BYTES * count if plain else logit + 2 * weight,
        slope=(SLOPE_BYTES + mask_again * AGAIN_BYTES) * count if plain else 2 * logit + weight + FLOAT_BYTES,
        sums=2 * FLOAT_BYTES if options.gradients_dtype == "float32" else CHANCE_BYTES,
        optimiser=count * (3 * logit + moments),
        launches=BLOCK_LAUNCHES + remade * (PLAIN_LAUNCHES if plain else GATE_LAUNCHES),
        remade=remade,
    )


def parts(
    sizes: Sizes, options: LoopOptions, way: Way, length: int, processes: int = 1, gpu: GPU = H100
) -> dict[str, float]:
    """Seconds of one step in each of so many processes, by part; `launches` go on beside all others."""
    tokens = options.batch_size * length / processes
    micro = options.batch_size / options.micro_batch_size / processes
    again = 1 if options.gradient_checkpointing else 0
    rate, moved = gpu.flops, gpu.bandwidth * POINTWISE
    products = (6 + 2 * again * way.again) * sizes.prunable + 4 * sizes.hidden * sizes.vocabulary
    attention = (3.5 + again) * 2 * length * sizes.hidden * sizes.blocks
    uses = (2 + again) * micro if way.remade else 1
    loss_parts = math.ceil(options.micro_batch_size * length * sizes.vocabulary / way.scores)
    return {
        "products": products * tokens / (rate * product_share(sizes.hidden)),
        "attention": attention * tokens / (rate * ATTENTION),
        "elementwise": way.pointwise * pointwise_bytes(sizes) * (3 + again) * tokens / moved,
        "loss": LOSS_BYTES * sizes.vocabulary * tokens / moved,
        "gates": (way.gate * uses + way.slope) * sizes.prunable / moved,
        "sums": way.sums * micro * sizes.prunable / moved,
        "optimiser": way.optimiser * sizes.prunable / processes / moved,
        "launches": LAUNCH_SECONDS * micro * (sizes.blocks * way.launches + LOSS_LAUNCHES * loss_parts),
    }


def step_seconds(found: dict[str, float]) -> float:
    """Of a step's parts: the GPU's one after another, or the host's launches where they take longer."""
    launches = found["launches"]
    return max(sum(found.values()) - launches, launches)


def pointwise_bytes(sizes: Sizes) -> float:
    """What elementwise kernels of all blocks move for a token in one pass, in 16 bits: norms, residuals and rotations
    of D (84 bytes), queries, keys and values with heads of D and D / 4 (18 each), the MLP's F (10)."""
    width = sizes.hidden
    return (84 * width + 18 * 1.25 * width + 10 * sizes.widest) * sizes.blocks


def product_share(width: float) -> float:
    """The share of the GPU's rate that products of a model so wide reach: between PRODUCTS by its logarithm."""
    if width <= PRODUCTS[0][0]:
        return PRODUCTS[0][1]
    for (below, low), (above, high) in pairwise(PRODUCTS):
        if width <= above:
            return low + (high - low) * math.log(width / below) / math.log(above / below)
    return PRODUCTS[-1][1]
