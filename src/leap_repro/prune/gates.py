"""The relaxed Bernoulli gates of LEAP: one logit per prunable weight, all in one flat float32 vector.

    m = sigmoid((kappa * theta + noise) / tau),  noise ~ Logistic(0, 1)

which is the Gumbel-sigmoid of the paper: the difference of two Gumbel variables is one Logistic variable.
One sample is drawn per optimiser step, from a generator seeded by (seed, step): every micro-batch of a step sees the
same gates, so splitting a batch changes nothing but rounding, and a resumed run draws what an undisturbed one would.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leap_repro.seeds import named_seed

LOGIT_STD = 0.014
PRIOR_STDS = 3.0


def initial_logits(count: int, warm_start: Tensor | None, seed: int) -> Tensor:
    """theta = N(0, 0.014^2) + 3 std(theta) (+1 where the warm start keeps the weight, -1 where it drops it).

    `warm_start` is a flat bool mask [count], or None for no prior. Returns float32 [count].
    """
    generator = torch.Generator().manual_seed(named_seed("logits", seed))
    theta = torch.randn(count, generator=generator) * LOGIT_STD
    if warm_start is None:
        return theta
    return theta + PRIOR_STDS * theta.std() * (warm_start.float() * 2 - 1)


def logistic_noise(count: int, seed: int, step: int, device: torch.device) -> Tensor:
    """Logistic(0, 1) noise of one step, the same for the same (seed, step, count, kind of device)."""
    generator = torch.Generator(device=device).manual_seed(named_seed("noise", seed, step))
    uniform = torch.rand(count, generator=generator, device=device)
    return torch.logit(uniform, eps=1e-7)


def relaxed_gates(theta: Tensor, noise: Tensor, kappa: float, tau: float) -> Tensor:
    """m = sigmoid((kappa theta + noise) / tau), elementwise in (0, 1)."""
    return torch.sigmoid((kappa * theta + noise) / tau)
