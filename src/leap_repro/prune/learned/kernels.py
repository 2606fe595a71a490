"""Whether Triton's kernels run on a device, found out by compiling and running one; and its random numbers.

That a package is installed says little: a compiler, a header or a driver may be missing or too old.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from leap_repro.errors import reason
from leap_repro.prune.learned import philox

log = logging.getLogger(__name__)
BLOCK = 2048
"""Numbers that one program of a kernel makes."""
TRIED = 4 * BLOCK + 3
"""Numbers that are compared before a kernel is trusted."""


def kernels_run(device: torch.device) -> bool:
    """Whether the device is a GPU for which Triton compiles."""
    return device.type == "cuda" and _compiles()


@cache
def _compiles() -> bool:
    """Tried once a process, on its GPU; a warning says why not."""
    fault = _fault(torch.device("cuda"))
    if fault:
        log.warning(
            "Triton's kernels do not run on this GPU (%s): masks are computed without them, which is slower", fault
        )
    return fault is None


def _fault(device: torch.device) -> str | None:
    """Why random numbers that a kernel makes cannot be had on the device; None if they can and are the right ones."""
    try:
        found = counted_uniforms(1, 2, 3, TRIED, device).cpu()
    except Exception as error:  # a compiler, its assembler and a driver raise what they like
        return f"{type(error).__name__}: {reason(error)}"
    right = torch.equal(found, philox.uniforms(1, 2, 3, TRIED, torch.device("cpu")))
    return None if right else "a kernel's random numbers are not those of the CPU"


def uniforms(key: int, draw: int, first: int, count: int, device: torch.device) -> Tensor:
    """`philox.uniforms`, by a kernel where kernels run: torch's integers move some 600 bytes for each number."""
    make = counted_uniforms if kernels_run(device) else philox.uniforms
    return make(key, draw, first, count, device)


def counted_uniforms(key: int, draw: int, first: int, count: int, device: torch.device) -> Tensor:
    """`philox.uniforms` by a kernel, to the bit: 4 bytes are moved for each number."""
    from leap_repro.prune.learned import fused_kernels

    kernel: Any = fused_kernels.uniforms_kernel
    found = torch.empty(count, device=device)
    programs = -(-(count + first % 4) // BLOCK)
    with torch.cuda.device_of(found):
        kernel[(programs,)](found, key, draw, first, count, BLOCK)
    return found
