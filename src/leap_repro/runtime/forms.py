"""The forms of the compiled kernels: which of them runs on this processor, and how one is called.

LEAP_REPRO_KERNELS names another one than the fastest. Where the extension was not built there is none, and torch does
everything, slowly.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from leap_repro.errors import UserError

try:
    from leap_repro.runtime import _kernels  # pyright: ignore[reportAttributeAccessIssue] # built by setup.py
except ImportError:
    _kernels = None

VARIABLE = "LEAP_REPRO_KERNELS"
FORMS = ("avx512vbmi2", "avx512", "avx2", "plain", "torch")
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3}
"""The numbers that kernels.c has for them."""
SLOW = {
    "plain": "this processor has neither AVX2 nor AVX-512: packed matrices are multiplied by plain C",
    "torch": "leap_repro was installed without its compiled kernels: torch unpacks packed matrices at each step. "
    "Reinstall where there is a C compiler",
}
"""What is said where one of these is the fastest form."""


@cache
def form() -> str:
    """The form that runs: the fastest that this processor has, or the one that LEAP_REPRO_KERNELS names when it is
    first asked; UserError if that one does not exist or cannot run here."""
    here, wanted = [*compiled(), "torch"], os.environ.get(VARIABLE)
    if wanted is None:
        if here[0] in SLOW:
            warnings.warn(f"{SLOW[here[0]]}; run='dense' is faster", stacklevel=3)
        return here[0]
    if wanted not in FORMS:
        raise UserError(f"{VARIABLE} is {wanted!r}; it can be {', '.join(FORMS)}")
    if wanted not in here:
        raise UserError(f"{VARIABLE} is {wanted!r}, which cannot run here; it can be {', '.join(here)}")
    return wanted


@cache
def compiled() -> dict[str, int]:
    """The compiled forms that this processor runs, the fastest first, and their numbers."""
    return _kernels.forms() if _kernels else {}


def kernel(name: str) -> Callable[..., None]:
    """A function of kernels.c; there is none if `form()` is "torch"."""
    return getattr(_kernels, name)


def call(name: str, arguments: tuple[int, ...], out: Tensor, tokens: Tensor | None) -> None:
    """The kernel of that name on a matrix, given by `arguments` as kernels.c wants it, and on tokens [n, columns];
    writes `out`."""
    given = (0, 0, 0) if tokens is None else (tokens.data_ptr(), TYPES[tokens.dtype], len(tokens))
    threads = torch.get_num_threads()
    kernel(name)(compiled()[form()], *arguments, *given, out.data_ptr(), TYPES[out.dtype], threads)
