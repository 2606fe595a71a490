"""Numbers in few bits whose mean over chance is what they stand for.

Rounded to the nearest, a sum does not move by a step below half a unit in its last place, however often the step is
made. Rounded up or down by chance, with a mean that is the number, it moves by the step on average (arXiv 1502.02551).
Chance is seeded by a name and numbers, so that a resumed run makes the same choices.
"""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from leap_repro.prune.learned.kernels import uniforms
from leap_repro.prune.learned.philox import named_key
from leap_repro.seeds import named_seed

HALF = 1 << 16
"""Bits of a float32 that a bfloat16 lacks: 16."""


class Chance:
    """Random numbers for rounding, from one generator of torch's; a name and numbers seed it."""

    def __init__(self, device: torch.device, name: str, *numbers: int) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(named_seed(name, *numbers))

    def uniform(self, count: int, stream: int) -> Tensor:
        """Numbers in [0, 1), float32 [count]. `stream` says what they are for."""
        return torch.rand(count, generator=self.generator, device=self.device)

    def halves(self, shape: torch.Size, stream: int) -> Tensor:
        """Numbers from 0 to HALF - 1, int32 of `shape`."""
        return torch.randint(0, HALF, shape, dtype=torch.int32, generator=self.generator, device=self.device)


class CountedChance(Chance):
    """The same by counting, on any device (`philox.py`): a stream's next number follows from the key and its place in
    the stream, however many are drawn at a time."""

    def __init__(self, device: torch.device, name: str, *numbers: int) -> None:
        self.device, self.key, self.drawn = device, named_key(name, *numbers), Counter[int]()

    def uniform(self, count: int, stream: int) -> Tensor:
        first = self.drawn[stream]
        self.drawn[stream] += count
        return uniforms(self.key, stream, first, count, self.device)

    def halves(self, shape: torch.Size, stream: int) -> Tensor:
        return self.uniform(math.prod(shape), stream).mul_(HALF).to(torch.int32).view(shape)


CHANCES = {"generator": Chance, "counter": CountedChance}
"""By the source of random numbers (`gates.source_on`)."""


def by_chance(value: Tensor, dtype: torch.dtype, chance: Chance, stream: int = 0) -> Tensor:
    """A float32 tensor in `dtype`, bfloat16 or float32: up or down at random, so that the mean is `value`.

    The bits that are cut off, as a share of a unit, are the chance of the next number away from 0. What is not finite
    stays what it is: a draw could carry a NaN's bits over to a number.
    """
    if dtype == torch.float32:
        return value
    draw = chance.halves(value.shape, stream)
    rounded = draw.add_(value.view(torch.int32)).bitwise_and_(-HALF).view(torch.float32)
    return rounded.where(value.isfinite(), value).to(dtype)


def to_codes(value: Tensor, levels: Tensor, chance: Chance, stream: int = 0) -> Tensor:
    """Which of at most 256 ascending `levels` stands for each of `value`, uint8: one of its two neighbours at random,
    so that the mean is the value; the first or last level where there are not two. `value`, flat, is used up."""
    value.clamp_(levels[0], levels[-1])
    code = torch.bucketize(value, levels, out_int32=True).clamp_(min=1)
    high = levels.index_select(0, code)
    low = levels.index_select(0, code.sub_(1))
    share = value.sub_(low).div_(high.sub_(low))
    del high, low
    draw = chance.uniform(len(value), stream)
    return code.add_(draw < share).to(torch.uint8)
