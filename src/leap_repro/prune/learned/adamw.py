"""AdamW over many tensors, with its moments in a declared precision.

Ours, because torch's own keeps the moments in the parameter's precision: here logits can stay in float32 while the
moments, two of them per logit and the largest part of a training's memory, take half the room in bfloat16, or a quarter
in 8 bits (`moments.py`). The arithmetic is float32, some million entries at a time; gradients are freed one by one, the
moments are all of its state. A test holds it to torch's.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from leap_repro.prune.learned.moments import moments
from leap_repro.prune.learned.stochastic_rounding import Chance, by_chance

AT_ONCE = {"cpu": 2**20, "cuda": 2**24}
"""Entries updated at a time: 4 MiB of float32 on a CPU, on a GPU so many that calls are few."""


class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101) on `parameters`, whose `.grad` the caller sets.

    `dtype` is that of the moments, int8 for codes. With `chance` parameters in bfloat16 are rounded by chance, as codes
    always are; what chance decides hangs on `seed`, the step and the parameter's number, and comes from `chances`.
    """

    def __init__(
        self,
        parameters: list[Tensor],
        betas: tuple[float, float],
        decay: float,
        dtype: torch.dtype,
        epsilon: float = 1e-8,
        chance: bool = False,
        seed: int = 0,
        chances: type[Chance] = Chance,
    ) -> None:
        self.parameters, self.betas, self.decay, self.epsilon = parameters, betas, decay, epsilon
        self.chance, self.seed, self.chances = chance, seed, chances
        self.draws = chance or dtype == torch.int8
        self.first = [moments(local(p), signed=True, dtype=dtype) for p in parameters]
        self.second = [moments(local(p), signed=False, dtype=dtype) for p in parameters]

    def state(self, names: list[str]) -> dict[str, Tensor]:
        """Every tensor that a step reads and changes beside the parameters, by the parameter's name and its own."""
        return {
            f"{name}.{which}{part}": tensor
            for which, found in (("first", self.first), ("second", self.second))
            for name, moment in zip(names, found, strict=True)
            for part, tensor in moment.tensors.items()
        }

    @torch.no_grad()
    def step(self, number: int, rate: float) -> None:
        """Update every parameter; `number` counts steps from 0, so that no state but the moments need be saved.

        Gradients are freed one by one.
        """
        for index, parameter in enumerate(self.parameters):
            assert parameter.grad is not None
            gradient = local(parameter.grad).contiguous()
            parameter.grad = None
            chance = None
            if self.draws:
                chance = self.chances(gradient.device, "rounding", self.seed, number, index)
            for rows in _parts(gradient):
                self._update(index, rows, _flat(gradient)[rows].float(), number, rate, chance)

    def _update(
        self, index: int, rows: slice, gradient: Tensor, number: int, rate: float, chance: Chance | None
    ) -> None:
        """Some rows of one parameter."""
        beta1, beta2 = self.betas
        unbias1, unbias2 = 1 - beta1 ** (number + 1), 1 - beta2 ** (number + 1)
        first, second, parameter = self.first[index], self.second[index], _flat(local(self.parameters[index]))[rows]
        mean = first.read(rows).lerp_(gradient, 1 - beta1)
        square = second.read(rows).mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        first.write(rows, mean, chance)
        second.write(rows, square, chance)
        size = (square / unbias2).sqrt_().add_(self.epsilon)
        value = parameter.float().mul_(1 - rate * self.decay).addcdiv_(mean, size, value=-rate / unbias1)
        if self.chance:
            assert chance is not None
            value = by_chance(value, parameter.dtype, chance)
        parameter.copy_(value)


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a tensor that several share, else the tensor."""
    own = getattr(tensor, "to_local", None)
    return tensor if own is None else own()


def _flat(tensor: Tensor) -> Tensor:
    """A view as rows along the last dimension."""
    return tensor.view(-1, tensor.shape[-1])


def _parts(tensor: Tensor) -> Iterator[slice]:
    """Its rows, so many at a time as hold AT_ONCE entries."""
    rows = max(1, AT_ONCE[tensor.device.type] // tensor.shape[-1])
    return (slice(start, start + rows) for start in range(0, tensor.numel() // tensor.shape[-1], rows))
