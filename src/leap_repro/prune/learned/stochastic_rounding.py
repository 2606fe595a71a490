"""Numbers in few bits whose mean over chance is what they stand for.

Rounded to the nearest, a sum does not move by a step below half a unit in its last place, however often the step is
made. Rounded up or down by chance, with a mean that is the number, it moves by the step on average (arXiv 1502.02551).
Chance is a generator that the caller seeds, so that a resumed run makes the same choices.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALF = 1 << 16
"""Bits of a float32 that a bfloat16 lacks: 16."""


def by_chance(value: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """A float32 tensor in `dtype`, bfloat16 or float32: up or down by chance, so that the mean is `value`.

    The bits that are cut off, as a share of a unit, are the chance of the next number away from 0. What is not finite
    stays what it is: a draw could carry a NaN's bits over to a number.
    """
    if dtype == torch.float32:
        return value
    draw = torch.randint(0, HALF, value.shape, dtype=torch.int32, generator=generator, device=value.device)
    rounded = draw.add_(value.view(torch.int32)).bitwise_and_(-HALF).view(torch.float32)
    return rounded.where(value.isfinite(), value).to(dtype)


def to_codes(value: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Which of at most 256 ascending `levels` stands for each of `value`, uint8: one of its two neighbours by chance,
    so that the mean is the value; the first or last level where there are not two. `value`, flat, is used up."""
    value.clamp_(levels[0].item(), levels[-1].item())
    code = torch.bucketize(value, levels, out_int32=True).clamp_(min=1)
    high = levels.index_select(0, code)
    low = levels.index_select(0, code.sub_(1))
    share = value.sub_(low).div_(high.sub_(low))
    del high, low
    draw = torch.rand(value.shape, generator=generator, device=value.device)
    return code.add_(draw < share).to(torch.uint8)
