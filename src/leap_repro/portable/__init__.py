"""The same bits on every x86-64 processor with AVX2 and FMA, whoever made it: float32 on the CPU.

PyTorch's own kernels give the same bits wherever the instruction set is the same, and `pin` chooses it. But its matrix
products, factorisations, exp, log and sqrt are Intel MKL's, which goes other ways on each generation of processors, and
on those of other makers disregards `MKL_CBWR=AVX2`; the one setting that holds everywhere takes 2.5 times as long.
`kernels.py` puts others in their place. docs/numerics.md has what was measured.

Who wants these bits calls `pin` before torch and NumPy are loaded, as every stage of the pipeline does, and then
`use_portable_kernels`, which checks that the pins took. Importing this changes nothing.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from leap_repro.errors import UserError

if TYPE_CHECKING:
    import torch

Bits = Literal["portable", "native"]
PORTABLE: Bits = "portable"
"""The same bits on every processor."""
NATIVE: Bits = "native"
"""Each processor's own kernels: faster, and another processor's bits differ."""
CHOICES: tuple[Bits, ...] = (PORTABLE, NATIVE)

LIBRARIES = {"ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_CORETYPE": "Haswell", "MKL_CBWR": "AVX2"}
"""Which instructions the numerical libraries use on the CPU. Each reads its own once: OpenBLAS when it is loaded, torch
when it first computes. `MKL_CBWR`: for what may still reach MKL."""
HOW = (
    'in a new Python process run "from leap_repro.portable import pin; pin()" before torch and NumPy are imported, or '
    'ask for bits "native"'
)
_installed: list[torch.library.Library] = []


def pin() -> None:
    """Set `LIBRARIES` in this process's environment, which its children inherit, whatever stood there.

    UserError if torch or NumPy was loaded before, with other settings.
    """
    loaded = [name for name in ("torch", "numpy") if name in sys.modules]
    if loaded and not LIBRARIES.items() <= os.environ.items():
        raise UserError(f"portable bits cannot be had: {' and '.join(loaded)} had been imported; {HOW}")
    os.environ.update(LIBRARIES)


def unpin() -> None:
    """Take `LIBRARIES` out of the environment, where they stand as `pin` sets them: for native bits in a child."""
    for name, value in LIBRARIES.items():
        if os.environ.get(name) == value:
            del os.environ[name]


def check() -> None:
    """UserError unless torch and OpenBLAS took what `pin` set. It asks the libraries, not the environment."""
    import numpy  # noqa: F401  (each of the two brings an OpenBLAS of its own)
    import scipy.linalg  # noqa: F401
    import torch
    from threadpoolctl import threadpool_info

    found = {"torch's kernels": torch.backends.cpu.get_cpu_capability()}
    for number, library in enumerate(threadpool_info()):
        if library["internal_api"] == "openblas":
            found[f"OpenBLAS {number}"] = library["architecture"]
    wrong = {name: took for name, took in found.items() if took not in ("AVX2", LIBRARIES["OPENBLAS_CORETYPE"])}
    if wrong or len(found) == 1:
        took = ", ".join(f"{name} to be for {kind}" for name, kind in wrong.items()) or "no OpenBLAS"
        raise UserError(f"portable bits cannot be had: this process found {took}; {HOW}")


def promised(bits: Bits, dtype: str) -> Bits:
    """What a result can say of itself that is asked for with `bits`: portable ones are float32's on a CPU."""
    import torch

    return PORTABLE if bits == PORTABLE and dtype == "float32" and not torch.cuda.is_available() else NATIVE


def use_portable_kernels(dtype: str) -> None:
    """Replace those CPU kernels of torch that depend on the processor, for this process; a second call does nothing.
    UserError if the process was not pinned in time.

    Attention is made of products and a softmax, and oneDNN, which nothing but GELU uses in float32, is off. For the
    16-bit types no kernel is replaced and nothing promised: their products are oneDNN's, by each processor's own means.
    Only their attention is made of products, too, where there is no GPU: torch's own asks the processor what it could
    do, not what it is pinned to, and on one with AMX ends with "pack_vnni2 is only supported when avx512 is supported".
    """
    if _installed:
        return
    import torch

    if dtype != "float32":
        torch.backends.cuda.enable_flash_sdp(torch.cuda.is_available())
        return
    check()
    _installed.append(_library())
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.mkldnn.set_flags(False)


@contextmanager
def portable_kernels() -> Iterator[None]:
    """The same for as long as it is entered: afterwards torch has its own kernels again, if it had before."""
    if _installed:
        yield
        return
    import torch

    flash, onednn = torch.backends.cuda.flash_sdp_enabled(), torch.backends.mkldnn.enabled
    use_portable_kernels("float32")
    try:
        yield
    finally:
        _installed.pop()._destroy()
        torch.backends.cuda.enable_flash_sdp(flash)
        torch.backends.mkldnn.set_flags(onednn)


def _library() -> torch.library.Library:
    """torch's operators with our kernels, for as long as it lives."""
    import torch

    from leap_repro.portable.kernels import KERNELS

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        for name, kernel in KERNELS.items():
            library.impl(name, kernel, "CPU")
    return library
