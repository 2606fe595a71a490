"""The language-modelling loss L_LM of every learned gate, with one softmax for value and gradient.

L = mean over targets of  -log softmax(x)[t],    dL / dx = (softmax(x) - onehot(t)) / targets

Where a micro-batch has more scores x than SCORES_AT_ONCE, they are made, and differentiated, for as many tokens at a
time: the head is frozen, so all that is kept is the gradient at its inputs. Then the vocabulary does not set the peak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from leap_repro.models.head import Head
from leap_repro.models.load import vocabulary_size
from leap_repro.prune.learned.declaration import tokens_at_once

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NO_TARGET = -100


class LanguageLoss:
    """L_LM of a model as it stands, on micro-batches of at most so many tokens."""

    def __init__(self, model: PreTrainedModel, tokens: int) -> None:
        self.model = model
        self.rows = tokens_at_once(vocabulary_size(model), model.device.type)
        self.head = Head.of(model) if tokens > self.rows else None

    def __call__(self, tokens_BT: Tensor) -> Tensor:
        """Mean next-token cross-entropy, a scalar."""
        if self.head is None:
            return next_token_loss(self.model(tokens_BT, use_cache=False).logits, tokens_BT)
        return _InParts.apply(self.head.states(tokens_BT), self.head, tokens_BT, self.rows)


def next_token_loss(logits_BTV: Tensor, tokens_BT: Tensor) -> Tensor:
    """Mean next-token cross-entropy in float32, a scalar; the last position has no target (no copy is cut)."""
    return _CrossEntropy.apply(logits_BTV.flatten(0, 1), *_targets(tokens_BT))


def _targets(tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The next token of every position, flat, and its weight in the mean: 0 where there is none."""
    targets_N = nn.functional.pad(tokens_BT[:, 1:], (0, 1), value=NO_TARGET).flatten()
    has_target = targets_N != NO_TARGET
    return targets_N.where(has_target, 0), has_target.float() / has_target.sum()


class _InParts(torch.autograd.Function):
    """The loss of hidden states [B, T, D]; keeps its gradient there, and no score."""

    @staticmethod
    def forward(ctx: Any, states_BTD: Tensor, head: Head, tokens_BT: Tensor, rows: int) -> Tensor:
        slope, total = torch.empty_like(states_BTD), torch.zeros((), device=states_BTD.device)
        wholes = (states_BTD.flatten(0, 1), slope.flatten(0, 1), *_targets(tokens_BT))
        for states, at_states, target, weight in zip(*(whole.split(rows) for whole in wholes), strict=True):
            with torch.enable_grad():
                leaf = states.detach().requires_grad_(True)
                loss = _CrossEntropy.apply(head.scores(leaf), target, weight)
            at_states.copy_(torch.autograd.grad(loss, leaf)[0])
            total = total + loss.detach()
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * upstream.to(slope.dtype), None, None, None


class _CrossEntropy(torch.autograd.Function):
    """Keeps the gradient, in the scores' own dtype, in place of torch's log-probabilities and a second exp of them."""

    @staticmethod
    def forward(ctx: Any, scores_NV: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        index = targets_N[:, None]
        rows = tokens_at_once(scores_NV.shape[1], scores_NV.device.type)
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
        ctx.save_for_backward(slope, weights_N)
        return (torch.cat(losses).where(weights_N > 0, 0) * weights_N).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        slope, weights = ctx.saved_tensors
        return slope * (weights * upstream)[:, None].to(slope.dtype), None, None
