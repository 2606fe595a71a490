"""The language-modelling loss L_LM of every learned gate, with one softmax for value and gradient.

L = mean over targets of  -log softmax(x)[t],    dL / dx = (softmax(x) - onehot(t)) / targets
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NO_TARGET = -100
SCORES_AT_ONCE = 2**26
"""Scores taken to float32 at a time: 256 MiB."""


def next_token_loss(logits_BTV: Tensor, tokens_BT: Tensor) -> Tensor:
    """Mean next-token cross-entropy in float32, a scalar; the last position has no target (no copy is cut)."""
    targets = nn.functional.pad(tokens_BT[:, 1:], (0, 1), value=NO_TARGET)
    return _CrossEntropy.apply(logits_BTV.flatten(0, 1), targets.flatten())


class _CrossEntropy(torch.autograd.Function):
    """Keeps the gradient, in the scores' own dtype, in place of torch's log-probabilities and a second exp of them."""

    @staticmethod
    def forward(ctx: Any, scores_NV: Tensor, targets_N: Tensor) -> Tensor:
        has_target = targets_N != NO_TARGET
        index = targets_N.where(has_target, 0)[:, None]
        rows = max(1, SCORES_AT_ONCE // scores_NV.shape[1])
        losses, slope = [], None
        for start in range(0, len(scores_NV), rows):
            part = slice(start, start + rows)
            scores = scores_NV[part].float()
            chances = scores.softmax(dim=-1)
            # log sum exp(x) = max x - log max softmax(x): exact where exp(x) alone would be 0 or infinite
            losses.append(scores.amax(-1) - chances.amax(-1).log_() - scores.gather(1, index[part]).squeeze(1))
            chances.scatter_(1, index[part], chances.gather(1, index[part]) - 1)
            if len(scores) == len(scores_NV):
                slope = chances.to(scores_NV.dtype)
            else:
                slope = torch.empty_like(scores_NV) if slope is None else slope
                slope[part] = chances
        weights = has_target.float() / has_target.sum()
        ctx.save_for_backward(slope, weights)
        return (torch.cat(losses).where(has_target, 0) * weights).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        slope, weights = ctx.saved_tensors
        return slope * (weights * upstream)[:, None].to(slope.dtype), None
