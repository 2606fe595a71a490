"""How much memory a training needs, by formula (docs/memory.md), so that a run is planned before it is started.

The one formula: the plan, the preflight, requests to a cluster and the benchmark read it. No heavy imports.

Legend: P parameters, N prunable weights, n weights of the largest prunable matrix, L logits, B x T tokens of a
micro-batch, D hidden size, F the widest layer, V vocabulary.
"""

from __future__ import annotations

from leap_repro.models.sizes import Sizes
from leap_repro.prune.learned.declaration import (
    DTYPE_BYTES,
    FLOAT_BYTES,
    LoopOptions,
    TrainingOptions,
    WeightOptions,
    tokens_at_once,
)

MATRIX_FLOATS = 6
"""float32 copies of the largest matrix while its masked weight is differentiated: weight, mask, W * M, two gradients, a
term of the chain rule; and per logit of that matrix as many again for the soft mask and its slopes."""
BLOCK_HIDDEN, BLOCK_WIDE = 12, 4
"""Activations of one block per token, in hidden sizes and in widths: what attention and the gated MLP keep. Counted by
autograd's hooks: 12 D of OLMo 2's, 9 D of Llama's and Qwen 2.5's, and 4 F of all."""


def training_bytes(
    sizes: Sizes, options: LoopOptions, weight_dtype: str, length: int, processes: int = 1, device: str = "cpu"
) -> dict[str, int]:
    """The peak of one of so many processes of a training of either kind, by part, in bytes; their sum is the peak.
    `length` is the tokens of a sequence, `device` the type of what is computed on. What Python and torch take for
    themselves is not counted."""
    weight = DTYPE_BYTES[weight_dtype]
    if isinstance(options, WeightOptions):
        lasting = _lasting_of_weights(sizes, options, weight)
    elif isinstance(options, TrainingOptions):
        lasting = _lasting_of_masks(sizes, options, weight, processes, device)
    else:
        raise TypeError(f"{type(options).__name__} trains neither masks nor weights")
    parts = lasting | _passing_bytes(sizes, options, weight, length, device)
    return {name: round(size) for name, size in parts.items()}


def _lasting_of_masks(
    sizes: Sizes, options: TrainingOptions, weight: int, processes: int, device: str
) -> dict[str, float]:
    """What one of so many processes holds from pass to pass of a training of masks, and one matrix at work."""
    per_weight = options.logits_per_weight
    logits = options.logit_bytes * per_weight
    masks = options.keeps_masks and not (options.has_kernels and device == "cuda")
    parts = {
        "weights": weight * sizes.parameters / processes,
        "logits": logits * sizes.prunable / processes,
        "moments": 2 * options.moment_bytes * per_weight * sizes.prunable / processes,
        "gradients": options.gradient_bytes * sizes.prunable,
        "masked weights": weight * sizes.prunable if options.keeps_products else 0,
        "masks": FLOAT_BYTES * sizes.prunable if masks else 0,
        "matrix": FLOAT_BYTES * MATRIX_FLOATS * sizes.largest * (1 + per_weight),
    }
    if processes > 1:
        outside = sizes.parameters - sizes.prunable
        blocks = max(sizes.blocks, 1) if options.gathered == "step" else 2
        parts["gathered"] = weight * outside + blocks * (weight + logits) * sizes.prunable / max(sizes.blocks, 1)
    if options.frozen_mask_bytes:
        parts["frozen masks"] = options.frozen_mask_bytes * sizes.prunable
    return parts


def _lasting_of_weights(sizes: Sizes, options: WeightOptions, weight: int) -> dict[str, float]:
    """The same of a training of weights: the model, what is trained of it, one matrix at work."""
    return {
        "weights": weight * sizes.parameters,
        "trained": options.lasting_bytes(weight, sizes.hidden) * sizes.prunable,
        "matrix": FLOAT_BYTES * MATRIX_FLOATS * sizes.largest,
    }


def _passing_bytes(sizes: Sizes, options: LoopOptions, weight: int, length: int, device: str) -> dict[str, float]:
    """What a micro-batch keeps for the backward pass: activations, and scores over the vocabulary in float32."""
    tokens = options.micro_batch_size * length
    block = tokens * (BLOCK_HIDDEN * sizes.hidden + BLOCK_WIDE * sizes.widest)
    at_once = 1 if options.gradient_checkpointing else sizes.blocks
    scores = min(tokens, tokens_at_once(sizes.vocabulary, device)) * sizes.vocabulary
    return {
        "activations": weight * (block * at_once + tokens * sizes.hidden * sizes.blocks),
        "vocabulary": scores * (2 * weight + 2 * FLOAT_BYTES),
    }
