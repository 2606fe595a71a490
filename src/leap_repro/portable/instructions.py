"""Whether this processor has instructions for products of 16-bit numbers.

oneDNN, which computes torch's 16-bit products on a CPU, uses AMX or AVX-512's dot product of
bfloat16 where they are there: up to ten times as fast as float32. Without them it takes ten to a
hundred times as long as float32, and a product is better made of float32 copies.
"""

from __future__ import annotations

from functools import cache

import torch


@cache
def for_bfloat16() -> str | None:
    """The fastest instructions of this processor for products in bfloat16, or None."""
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else None


def multiplies(tensor: torch.Tensor) -> bool:
    """Whether products of such tensors are made as they are: in float32, on a GPU, or by `for_bfloat16`."""
    if tensor.device.type != "cpu" or tensor.dtype in (torch.float32, torch.float64):
        return True
    return tensor.dtype == torch.bfloat16 and for_bfloat16() is not None


def in_words(dtype: torch.dtype) -> str:
    """What products of this type are computed with on this processor."""
    name = str(dtype).removeprefix("torch.")
    if dtype in (torch.float32, torch.float64):
        return f"products in {name}"
    found = for_bfloat16() if dtype == torch.bfloat16 else None
    if found is None:
        return f"products of {name} numbers in float32: this processor has no instructions for them"
    return f"products in {name} by {found}"
