"""How much memory a mask training needs, by formula (docs/memory.md), so that a run is planned before it is started.

Legend: P parameters, N prunable weights, n weights of the largest prunable matrix, L logits, B x T tokens of a
micro-batch, D hidden size, F the widest layer, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from leap_repro.models.load import DTYPES
from leap_repro.models.prunable import decoder_blocks, prunable_linears
from leap_repro.prune.learned.declaration import TrainingOptions, tokens_at_once

FLOAT = 4
MATRIX_FLOATS = 6
"""float32 copies of the largest matrix while its masked weight is differentiated: weight, mask, W * M, two gradients, a
term of the chain rule; and per logit of that matrix as many again for the soft mask and its slopes."""
BLOCK_HIDDEN, BLOCK_WIDE = 16, 5
"""Activations of one block per token, in hidden sizes and in widths: what attention and the gated MLP keep."""


@dataclass(frozen=True)
class Sizes:
    """What the formula needs to know of a model; `widest` is the largest output of a prunable matrix, of a mixture
    that of all experts which one token sees."""

    parameters: int
    prunable: int
    largest: int
    hidden: int
    widest: int
    blocks: int
    vocabulary: int

    @classmethod
    def of(cls, model: nn.Module) -> Sizes:
        """Of a model, which may be on the meta device: nothing is computed."""
        linears = prunable_linears(model)
        embedding = model.get_input_embeddings()
        chosen = getattr(model.config, "num_experts_per_tok", 1)  # a token's activations in so many experts at once
        return cls(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            prunable=sum(linear.weight.numel() for linear in linears),
            largest=max(linear.weight.numel() for linear in linears),
            hidden=embedding.embedding_dim,
            widest=max(linear.module.out_features * (chosen if linear.is_expert else 1) for linear in linears),
            blocks=len(decoder_blocks(model)[1]),
            vocabulary=embedding.num_embeddings,
        )


def training_bytes(sizes: Sizes, options: TrainingOptions, weight_dtype: str, length: int) -> dict[str, int]:
    """The peak of one process by part, in bytes; their sum is the peak. `length` is the tokens of a sequence. What
    Python and torch take for themselves is not counted."""
    weight = DTYPES[weight_dtype].itemsize
    per_weight = options.logits_per_weight
    tokens = options.micro_batch_size * length
    block = tokens * (BLOCK_HIDDEN * sizes.hidden + BLOCK_WIDE * sizes.widest)
    at_once = 1 if options.gradient_checkpointing else sizes.blocks
    parts = {
        "weights": weight * sizes.parameters,
        "logits": options.logit_bytes * per_weight * sizes.prunable,
        "moments": 2 * options.moment_bytes * per_weight * sizes.prunable,
        "gradients": options.gradient_bytes * sizes.prunable,
        "masks": 0 if options.gradient_checkpointing else FLOAT * sizes.prunable,
        "matrix": FLOAT * MATRIX_FLOATS * sizes.largest * (1 + per_weight),
        "activations": weight * (block * at_once + tokens * sizes.hidden * sizes.blocks),
        "vocabulary": min(tokens, tokens_at_once(sizes.vocabulary)) * sizes.vocabulary * (2 * weight + 2 * FLOAT),
    }
    if options.frozen_mask_bytes:
        parts["frozen masks"] = options.frozen_mask_bytes * sizes.prunable
    return {name: round(size) for name, size in parts.items()}
