"""The categorical gate of MaskLLM: one logit per 2:4 pattern and group of four weights.

M = softmax((kappa theta + g) / tau) . patterns,  g ~ Gumbel(0, 1)
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.prune.learned.declaration import Relaxation
from leap_repro.prune.learned.gates import Gate, Noise, normal_logits, prior, straight_through
from leap_repro.prune.learned.processes import whole
from leap_repro.sparsity.patterns import TWO_OF_FOUR

GROUP, PATTERNS = 4, len(TWO_OF_FOUR)


class PatternGate(Gate):
    """`theta` is [out, in / 4, 6]: the six patterns of each group of four consecutive inputs.

    The logits are held as [6, out, in / 4]: a softmax over the first axis runs along memory, several times as fast.
    """

    def __init__(self, theta: Tensor) -> None:
        self.logits = {"patterns": theta.movedim(-1, 0).contiguous().requires_grad_(True)}

    def mask(self, noise: Noise, relaxation: Relaxation) -> Tensor:
        theta = self.logits["patterns"]
        draw = noise.gumbel(*theta.shape)
        return pattern_mask(theta, draw, relaxation.pattern_kappa, relaxation.tau, relaxation.hard)

    def kept(self) -> Tensor:
        theta = self.logits["patterns"]
        count = torch.zeros((), dtype=torch.int64, device=theta.device)
        return count.fill_(theta.numel() // PATTERNS * GROUP // 2)

    def results(self) -> dict[str, Tensor]:
        return {"patterns": whole(self.logits["patterns"].detach()).cpu().movedim(0, -1).contiguous()}


def pattern_mask(theta: Tensor, gumbel: Tensor, kappa: float, tau: float, hard: bool) -> Tensor:
    """M = softmax((kappa theta + g) / tau) . patterns, float32 [out, in] of [6, out, in / 4]; the noise is used up."""
    soft = gumbel.add_(theta.float(), alpha=kappa).div_(tau).softmax(dim=0)
    if hard:
        one_hot = torch.zeros_like(soft).scatter_(0, soft.argmax(dim=0, keepdim=True), 1)
        soft = straight_through(soft, one_hot)
    return (soft.flatten(1).T @ _patterns(theta.device)).view(theta.shape[1], -1)


def pattern_logits(
    name: str, shape: tuple[int, int], start: Tensor | None, seed: int, matrix: int, std: float, draw: bool = True
) -> Tensor:
    """theta = N(0, std^2) + 3 std(theta) (<pattern, M0> - 1), M0 the start's mask of the group; float32 [out, in/4, 6].

    `start` is a bool mask [out, in] or None for no prior; without `draw` a start's prior stands alone. UserError unless
    groups of four fill the rows.
    """
    if shape[1] % GROUP:
        raise UserError(f"{name} has {shape[1]} inputs, which {GROUP} does not divide: it has no 2:4 mask")
    theta = normal_logits((shape[0], shape[1] // GROUP, PATTERNS), seed, matrix, std)
    if start is None:
        return theta
    overlap = start.view(shape[0], -1, GROUP).float() @ _patterns(torch.device("cpu")).T
    return (theta if draw else 0) + prior(theta, std) * (overlap - 1)


@cache
def _patterns(device: torch.device) -> Tensor:
    """float32 [6, 4]"""
    return torch.tensor(TWO_OF_FOUR, dtype=torch.float32, device=device)
