"""The same bits on every x86-64 processor with AVX2 and FMA, whoever made it: float32 and float64 on the CPU.

PyTorch's own kernels give the same bits wherever the instruction set is the same, and `leap_repro.LIBRARIES` pins it.
But its matrix products, factorisations, exp, log and sqrt are Intel MKL's, which goes other ways on each generation of
processors, and on those of other makers disregards `MKL_CBWR=AVX2`; the one setting that holds everywhere takes 2.5
times as long. `kernels.py` puts others in their place. docs/numerics.md has what was measured.
"""

from __future__ import annotations

import warnings

_installed: list[object] = []


def use_portable_kernels(dtype: str) -> None:
    """Replace those CPU kernels of torch that depend on the processor, for this process; a second call does nothing.

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
    from leap_repro.portable.kernels import KERNELS

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        for name, kernel in KERNELS.items():
            library.impl(name, kernel, "CPU")
    _installed.append(library)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.mkldnn.set_flags(False)
