"""AdamW over many tensors, with its moments in a declared precision.

Ours, because torch's own keeps the moments in the parameter's precision: here logits can stay in float32 while the
moments, two of them per logit and the largest part of a training's memory, take half the room in bfloat16. The
arithmetic is float32, gradients are freed one by one, the moments are all of its state. A test holds it to torch's.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8


class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101) on `parameters`, whose `.grad` the caller sets."""

    def __init__(self, parameters: list[Tensor], betas: tuple[float, float], decay: float, dtype: torch.dtype) -> None:
        self.parameters, self.betas, self.decay = parameters, betas, decay
        self.first = [torch.zeros_like(p, dtype=dtype, requires_grad=False) for p in parameters]
        self.second = [torch.zeros_like(p, dtype=dtype, requires_grad=False) for p in parameters]

    @torch.no_grad()
    def step(self, number: int, rate: float) -> None:
        """Update every parameter; `number` counts steps from 0, so that no state but the moments need be saved.

        Gradients are freed one by one.
        """
        beta1, beta2 = self.betas
        unbias1, unbias2 = 1 - beta1 ** (number + 1), 1 - beta2 ** (number + 1)
        for parameter, first, second in zip(self.parameters, self.first, self.second, strict=True):
            gradient = parameter.grad.float()
            parameter.grad = None
            mean = first.float().lerp_(gradient, 1 - beta1)
            square = second.float().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            first.copy_(mean)
            second.copy_(square)
            size = (square / unbias2).sqrt_().add_(EPSILON)
            value = parameter.float().mul_(1 - rate * self.decay).addcdiv_(mean, size, value=-rate / unbias1)
            parameter.copy_(value)
