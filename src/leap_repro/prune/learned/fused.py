"""LEAP's gates at the speed of memory: on a GPU, one pass over logits and weight makes W * M, and one its gradient.

The plain way (`masked.py`) writes noise, mask and each step between to memory and reads it again. Here a kernel
(`fused_kernels.py`) counts its noise where it needs it, so that only what must move does. Both compute the same numbers
but for rounding; `MaskedLinear` with counted noise is the oracle, and runs wherever the kernels do not.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from leap_repro.prune.learned.declaration import Relaxation, TrainingOptions
from leap_repro.prune.learned.gates import BernoulliGate, CounterNoise, Gate
from leap_repro.prune.learned.kernels import BLOCK, kernels_run
from leap_repro.prune.learned.masked import MaskedLinear, Step

FLOAT = 4


class KernelSwitches(NamedTuple):
    """What the kernels are compiled for: Gumbel variables in the noise, rounded gates, absolute sums for sizes."""

    gumbels: int = 2
    hard: bool = False
    absolute: bool = False


PAPERS = KernelSwitches()


def masked_product(
    theta: Tensor, weight: Tensor, key: int, relaxation: Relaxation, switches: KernelSwitches = PAPERS
) -> tuple[Tensor, Tensor]:
    """W * M of a matrix in the weight's dtype, and float64 [2]: the sum of M, and the size of W * M before rounding.

    Blocks are added in their own order, so that the sums are the same in every run.
    """
    theta, weight = theta.contiguous(), weight.contiguous()
    product, sums = torch.empty_like(weight), weight.new_empty(blocks(weight.numel()), 2, dtype=torch.float32)
    _launch("product_kernel", (theta, weight, product, sums), (key, *_scales(relaxation)), switches)
    return product, sums.sum(dim=0, dtype=torch.float64)


def logit_gradient(
    theta: Tensor,
    weight: Tensor,
    at_product: Tensor,
    key: int,
    relaxation: Relaxation,
    slopes: tuple[float, float],
    switches: KernelSwitches = PAPERS,
) -> Tensor:
    """The gradient at theta, in its dtype: kappa / tau m (1 - m) times that at M, from the gradient at W * M and the
    `slopes` in M's sum and in the size of W * M."""
    theta, weight, at_product = theta.contiguous(), weight.contiguous(), at_product.contiguous()
    at_theta = torch.empty_like(theta)
    numbers = (key, *_scales(relaxation), relaxation.kappa / relaxation.tau, *slopes)
    _launch("gradient_kernel", (theta, weight, at_product, at_theta), numbers, switches)
    return at_theta


def _scales(relaxation: Relaxation) -> tuple[float, float]:
    """Of logits and of noise in powers of 2, which a GPU takes for itself."""
    sharpness = 1 / (relaxation.tau * math.log(2))
    return relaxation.kappa * sharpness, sharpness


def blocks(weights: int) -> int:
    """Programs for a matrix of so many."""
    return -(-weights // BLOCK)


def _launch(kernel: str, tensors: tuple[Tensor, ...], numbers: tuple[Any, ...], switches: KernelSwitches) -> None:
    from leap_repro.prune.learned import fused_kernels

    weight = tensors[1]
    with torch.cuda.device_of(weight):
        getattr(fused_kernels, kernel)[(blocks(weight.numel()),)](*tensors, *numbers, weight.numel(), *switches, BLOCK)


def least_bytes(logits: torch.dtype, weight: torch.dtype, gradient: torch.dtype | None = None) -> int:
    """Per weight, what no way can do without: logits and weight are read, W * M is written; with `gradient`, the dtype
    of that at W * M, all three are read and the gradient at the logits is written."""
    read = logits.itemsize + weight.itemsize
    return read + weight.itemsize if gradient is None else read + gradient.itemsize + logits.itemsize


def bytes_moved(weights: int, logits: torch.dtype, weight: torch.dtype, gradient: torch.dtype | None = None) -> int:
    """What the kernels move for a matrix of so many weights: the least, and forward two sums a block."""
    sums = 2 * FLOAT * blocks(weights) if gradient is None else 0
    return weights * least_bytes(logits, weight, gradient) + sums


class FusedLinear(MaskedLinear):
    """A prunable matrix with a Bernoulli gate whose mask is never in memory; its noise is counted."""

    gate: BernoulliGate

    def mask(self, step: Step, graph: bool) -> CounterNoise:
        """What the kernels make the mask of, each for itself."""
        return cast(CounterNoise, self.noise(step))

    def _product(self, noise: CounterNoise, step: Step, measuring: bool = False) -> Tensor:
        product, sums = masked_product(*self._read(), noise.key, step.relaxation, self._switches(step))
        if measuring:
            self.sum, self.size = sums
        return product

    def _at_logits(self, noise: CounterNoise, step: Step, at_sum: float, at_size: float) -> tuple[Tensor, ...]:
        slopes = (at_sum, at_size)
        assert self.gradient is not None
        given = (self.gradient, noise.key, step.relaxation, slopes, self._switches(step))
        return (logit_gradient(*self._read(), *given),)

    def _read(self) -> tuple[Tensor, Tensor]:
        return self.gate.logits["logits"].detach(), self.linear.weight.detach()

    def _switches(self, step: Step) -> KernelSwitches:
        return KernelSwitches(self.gate.gumbels, step.relaxation.hard, step.absolute)


def layer_kind(gate: Gate, options: TrainingOptions, source: str, device: torch.device) -> type[MaskedLinear]:
    """How a gate's matrix runs: fused for LEAP's gates in float32 with counted noise where kernels run, or plainly."""
    in_float32 = options.relaxation(0).dtype in (None, "float32")
    fits = source == "counter" and isinstance(gate, BernoulliGate) and in_float32
    return FusedLinear if fits and kernels_run(device) else MaskedLinear
