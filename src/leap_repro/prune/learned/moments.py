"""How an optimiser's moments lie in memory: as numbers, or as 8-bit codes.

8 bits: along a tensor's last dimension, BLOCK entries share a scale, their largest size; each is the code of a level
times its scale (arXiv 2110.02861). Two things are for LEAP's gradients. Late in a training most gates hardly move any
more: half of all second moments are below 1e-9 of their block's largest. The usual levels round those to 0 while the
first moments are not, and a step is as large as epsilon allows: with torchao's 8-bit AdamW a logit moved by 4,151
learning rates in one step. Here levels are evenly spaced in the logarithm, and what is above 0 stays so. And a moment
that fades by 5 % a step, less than half a level, would stay where it is: levels are chosen by chance.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from leap_repro.prune.learned.stochastic_rounding import Chance, to_codes

BLOCK = 256
OCTAVES = {True: 24, False: 48}
"""From the smallest level to 1, by sign: of gradients with a sign, and of their squares."""


@cache
def levels(signed: bool) -> Tensor:
    """The ascending levels, float32, on the CPU: -1 … 1 with 0 between, or 2^-48 … 1 (0 is that of a scale of 0)."""
    count = 127 if signed else 256
    sizes = [2.0 ** (-OCTAVES[signed] * (1 - step / (count - 1))) for step in range(count)]
    return torch.tensor([-size for size in reversed(sizes)] + [0.0] + sizes if signed else sizes)


class Numbers:
    """A moment per entry in a floating type, rounded to the nearest."""

    def __init__(self, like: Tensor, dtype: torch.dtype) -> None:
        self.tensors = {"": torch.zeros_like(like, dtype=dtype, requires_grad=False)}

    def read(self, rows: slice) -> Tensor:
        """The moments of some rows in float32; may be changed by the caller, who then writes them."""
        return self.tensors[""].view(-1, self.tensors[""].shape[-1])[rows].float()

    def write(self, rows: slice, moments: Tensor, _: Chance | None) -> None:
        """Take them back."""
        self.tensors[""].view(-1, moments.shape[-1])[rows] = moments


class Codes:
    """A moment per entry in 8 bits."""

    def __init__(self, like: Tensor, signed: bool) -> None:
        blocks = -(-like.shape[-1] // BLOCK)
        self.levels, self.stream = levels(signed).to(like.device), 1 if signed else 2
        self.tensors = {
            ".codes": torch.zeros_like(like, dtype=torch.uint8, requires_grad=False),
            ".scales": torch.zeros(*like.shape[:-1], blocks, device=like.device),
        }

    def read(self, rows: slice) -> Tensor:
        codes, scales = (tensor.view(-1, tensor.shape[-1])[rows] for tensor in self.tensors.values())
        found = self.levels.index_select(0, codes.flatten().int()).view(codes.shape)
        return found.mul_(_spread(scales, codes.shape[-1]))

    def write(self, rows: slice, moments: Tensor, chance: Chance | None) -> None:
        assert chance is not None, "codes are rounded stochastically"
        codes, scales = (tensor.view(-1, tensor.shape[-1])[rows] for tensor in self.tensors.values())
        missing = scales.shape[-1] * BLOCK - moments.shape[-1]
        filled = nn.functional.pad(moments, (0, missing)) if missing else moments
        scales.copy_(torch.linalg.vector_norm(filled.view(*scales.shape, BLOCK), float("inf"), dim=-1))
        shares = _spread(scales, moments.shape[-1]).clamp_(min=torch.finfo(torch.float32).tiny)
        torch.div(moments, shares, out=shares)
        codes.copy_(to_codes(shares.flatten(), self.levels, chance, self.stream).view(codes.shape))


def _spread(scales: Tensor, columns: int) -> Tensor:
    """Each block's scale at its entries: [rows, columns], a copy."""
    return scales.repeat_interleave(BLOCK, dim=-1)[:, :columns].contiguous()


def moments(like: Tensor, signed: bool, dtype: torch.dtype) -> Numbers | Codes:
    """Zeros for each entry of `like`, in `dtype`; int8 means codes."""
    return Codes(like, signed) if dtype == torch.int8 else Numbers(like, dtype)
