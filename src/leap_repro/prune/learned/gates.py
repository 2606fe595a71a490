"""What a learned gate is, the noise that relaxes it, and the Bernoulli gate of LEAP.

A gate makes the relaxed mask of one matrix out of its logits. LEAP has one logit per weight (here), MaskLLM one per
2:4 pattern and group (`gates_pattern.py`), PATCH one per tile (`gates_tile.py`); the trainer knows none of them.

Noise is drawn per (seed, step, matrix), or per micro-batch too: whoever needs the gates makes the same ones without
keeping them, be it another process or the backward pass, and a resumed run draws what an undisturbed one would.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import MutableMapping

import torch
from torch import Tensor

from leap_repro.prune.learned.declaration import Relaxation
from leap_repro.prune.learned.kernels import uniforms
from leap_repro.prune.learned.philox import named_key
from leap_repro.prune.learned.processes import whole
from leap_repro.seeds import named_seed

LOGIT_STD = 0.014
PRIOR_STDS = 3.0
EDGE = 1e-7
"""Uniform draws are kept this far from 0 and 1, where the noise would be infinite."""


class Noise:
    """The random numbers of one matrix in one draw, taken in order from one generator, which `numbers` seed: the cell's
    seed, step and matrix, and the micro-batch if each has its own."""

    def __init__(self, device: torch.device, *numbers: int) -> None:
        self.device = device
        self.generator = torch.Generator(device=device).manual_seed(named_seed("noise", *numbers))

    def logistic(self, *shape: int) -> Tensor:
        """Logistic(0, 1), the difference of two Gumbel(0, 1) variables; float32."""
        return torch.logit(self._uniform(shape), eps=EDGE)

    def gumbel(self, *shape: int) -> Tensor:
        """Gumbel(0, 1); float32."""
        return self._uniform(shape).clamp_(EDGE, 1 - EDGE).log_().neg_().log_().neg_()

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device)


class CounterNoise(Noise):
    """The same by counting: each number follows from the key, how many draws came before, and its place in its draw, on
    any device (`philox.py`)."""

    def __init__(self, device: torch.device, *numbers: int) -> None:
        self.device, self.draws, self.key = device, 0, named_key("noise", *numbers)

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        self.draws += 1
        return uniforms(self.key, self.draws - 1, 0, math.prod(shape), self.device).view(shape)


NOISES = {"generator": Noise, "counter": CounterNoise}
"""By the source of random numbers (`source_on`)."""


def source_on(device: torch.device, asked: str = "auto") -> str:
    """Where a training's random numbers come from, of which `noise_source` asks for one: "generator" is torch's, whose
    numbers differ between kinds of GPUs; "counter" has the same everywhere and is what "auto" takes on a GPU."""
    if asked != "auto":
        return asked
    return "counter" if device.type == "cuda" else "generator"


class Gate(ABC):
    """One matrix's gate. `logits` maps the kind under which the prune stage writes them to a leaf tensor, of which a
    process may hold a shard only, except within a pass."""

    logits: MutableMapping[str, Tensor]

    @abstractmethod
    def mask(self, noise: Noise, relaxation: Relaxation) -> Tensor:
        """The relaxed mask [out, in] in float32, differentiable in the logits."""

    @abstractmethod
    def kept(self) -> Tensor:
        """How many weights the logits keep as they stand, each decided by itself (no budget); a scalar."""

    def results(self) -> dict[str, Tensor]:
        """What hardening needs of the trained gate, by kind, on the CPU."""
        return {kind: whole(logits.detach()).cpu().contiguous() for kind, logits in self.logits.items()}


class BernoulliGate(Gate):
    """m = sigmoid((kappa theta + noise) / tau), one theta per weight: the Gumbel-sigmoid of LEAP. The noise is the
    difference of two Gumbel variables, or only one of them, which favours keeping, as a secondary source writes it."""

    def __init__(self, theta: Tensor, gumbels: int = 2) -> None:
        self.logits, self.gumbels = {"logits": theta.requires_grad_(True)}, gumbels

    def mask(self, noise: Noise, relaxation: Relaxation) -> Tensor:
        theta = self.logits["logits"]
        draw = noise.logistic if self.gumbels == 2 else noise.gumbel
        return relaxed_gates(theta, draw(*theta.shape), relaxation)

    def kept(self) -> Tensor:
        return whole((self.logits["logits"].detach() > 0).sum())


def relaxed_gates(theta: Tensor, noise: Tensor, relaxation: Relaxation) -> Tensor:
    """m = sigmoid((kappa theta + noise) / tau), elementwise in (0, 1); with `hard` rounded to 0 or 1 in value only.

    The noise is used up: the gates are made in its place, which halves the time and the memory of a mask.
    """
    dtype = getattr(torch, relaxation.dtype) if relaxation.dtype else noise.dtype
    soft = noise.to(dtype).add_(theta.to(dtype), alpha=relaxation.kappa).div_(relaxation.tau).sigmoid_()
    return straight_through(soft, (soft > 0.5).to(dtype)) if relaxation.hard else soft


def straight_through(soft: Tensor, hard: Tensor) -> Tensor:
    """The value of `hard`, to the bit, with the gradient of `soft`."""
    return hard + (soft - soft.detach())


def normal_logits(shape: tuple[int, ...], seed: int, matrix: int, std: float = LOGIT_STD) -> Tensor:
    """N(0, std^2) in float32, the same for the same (seed, matrix)."""
    generator = torch.Generator().manual_seed(named_seed("logits", seed, matrix))
    return torch.randn(shape, generator=generator) * std


def prior(theta: Tensor, std: float = LOGIT_STD) -> float:
    """The size of a warm start's push: 3 std(theta), of the draw itself where it has a spread to measure."""
    return PRIOR_STDS * (float(theta.std()) if theta.numel() > 1 else std)


def bernoulli_logits(shape: tuple[int, ...], warm_start: Tensor | None, seed: int, matrix: int) -> Tensor:
    """theta = N(0, 0.014^2) + 3 std(theta) (+1 where the warm start keeps the weight, -1 where it drops it).

    `warm_start` is a bool mask of `shape`, or None for no prior. Returns float32 of `shape`.
    """
    theta = normal_logits(shape, seed, matrix)
    return theta if warm_start is None else theta + prior(theta) * (warm_start.float() * 2 - 1)
