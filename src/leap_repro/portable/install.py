"""Put the portable kernels in the place of torch's, once the process is found to be pinned."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_info

from leap_repro.errors import UserError
from leap_repro.portable import HOW, LIBRARIES, NATIVE, PORTABLE, Bits
from leap_repro.portable.kernels import KERNELS

_installed: list[torch.library.Library] = []


def check() -> None:
    """UserError unless torch and OpenBLAS took what `pin` set. It reads the libraries' settings, not the
    environment."""
    found = {"torch's kernels": torch.backends.cpu.get_cpu_capability()}
    for number, library in enumerate(threadpool_info()):
        if library["internal_api"] == "openblas":
            found[f"OpenBLAS {number}"] = library["architecture"]
    wrong = {name: took for name, took in found.items() if took not in ("AVX2", LIBRARIES["OPENBLAS_CORETYPE"])}
    if wrong or len(found) == 1:
        took = ", ".join(f"{name} to be for {kind}" for name, kind in wrong.items()) or "no OpenBLAS"
        raise UserError(f"portable bits are not available: this process found {took}; {HOW}")


def promised(bits: Bits, dtype: str) -> Bits:
    """The bits that a result can have if `bits` are requested: portable bits need float32 on a CPU."""
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
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        for name, kernel in KERNELS.items():
            library.impl(name, kernel, "CPU")
    return library
