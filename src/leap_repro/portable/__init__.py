"""The same bits on every x86-64 processor with AVX2 and FMA, whoever made it: float32 on the CPU.

PyTorch's own kernels give the same bits wherever the instruction set is the same, and `pin` chooses it. But its matrix
products, factorisations, exp, log and sqrt are Intel MKL's, which goes other ways on each generation of processors, and
on those of other makers disregards `MKL_CBWR=AVX2`; the one setting that holds everywhere takes 2.5 times as long.
`kernels.py` puts others in their place. docs/numerics.md has what was measured.

Who wants these bits calls `pin` before torch and NumPy are loaded, as every stage of the pipeline does, and then
`install.use_portable_kernels`, which checks that the pins took. Importing this changes nothing, and names none of the
libraries: every stage begins here, and not every one is stale when a kernel changes.
"""

from __future__ import annotations

import os
from typing import Literal

Bits = Literal["portable", "native"]
PORTABLE: Bits = "portable"
"""The same bits on every processor."""
NATIVE: Bits = "native"
"""Each processor's own kernels: faster, and another processor's bits differ."""
CHOICES: tuple[Bits, ...] = (PORTABLE, NATIVE)

LIBRARIES = {"ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_CORETYPE": "Haswell", "MKL_CBWR": "AVX2"}
"""Which instructions the numerical libraries use on the CPU. Each reads its own once: OpenBLAS when it is loaded, torch
when it first computes. `MKL_CBWR`: for what may still reach MKL."""
CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""The one workspace with which cuBLAS adds in one order; it reads this when it is first used."""
ALLOCATOR = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
"""Torch's memory on a GPU grows where it lies, so that tensors of many sizes leave no gaps."""
ALLOCATOR_NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Under which names torch looks for it (2.11 and later), the older ones last."""
HOW = (
    'in a new Python process run "from leap_repro.portable import pin; pin()" before torch and NumPy are imported, or '
    'ask for bits "native"'
)


def pin() -> None:
    """Set `LIBRARIES` in this process's environment, which its children inherit, whatever stood there. Whether it came
    in time, the libraries say: `install.check`."""
    os.environ.update(LIBRARIES)


def unpin() -> None:
    """Take `LIBRARIES` out of the environment, where they stand as `pin` sets them: for native bits in a child."""
    for name, value in LIBRARIES.items():
        if os.environ.get(name) == value:
            del os.environ[name]


def prepare_cuda() -> None:
    """Set what CUDA's libraries read when they start, in this process's environment: `CUBLAS` whatever stood there,
    `ALLOCATOR` where nothing did. It does nothing without a GPU."""
    os.environ.update(CUBLAS)
    if not any(name in os.environ for name in ALLOCATOR_NAMES):
        os.environ.update(ALLOCATOR)
