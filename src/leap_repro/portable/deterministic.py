"""The same bits again on one kind of GPU: torch's strict determinism, and float32 that is float32.

Strict and not `warn_only`: only then does the backward pass of flash attention add in one order.
TF32, which keeps ten bits of a factor, is off, since that many change masks. The switches are there
without a GPU too, where they change no result. What is promised: docs/numerics.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic

from leap_repro.errors import UserError
from leap_repro.portable import CUBLAS, prepare_cuda

FRESH: Any = torch.utils.deterministic  # torch declares no attribute of it
EXACT = "ieee"
"""What `fp32_precision` is called where float32 is computed in float32."""


@contextmanager
def deterministic() -> Iterator[None]:
    """Within it, torch computes in one order and float32 in full; afterwards as it did before.

    Every stage that computes enters it, and the library. UserError on a GPU whose cuBLAS was used
    before without its one workspace.
    """
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = FRESH.fill_uninitialized_memory
    products = torch.get_float32_matmul_precision()
    precisions = [place.fp32_precision for place in _places()]
    _set(True, False, False, "highest", [EXACT] * len(precisions))
    try:
        if torch.cuda.is_available():
            prepare_cuda()
            _require_workspace()
        yield
    finally:
        _set(strict, warn_only, filled, products, precisions)


def _set(strict: bool, warn_only: bool, filled: bool, products: str, precisions: list[str]) -> None:
    """Turn all switches. `filled`: whether fresh memory is overwritten, which costs a pass, and no
    result reads it. Of products there is an older switch, and torch wants both to say the same."""
    torch.use_deterministic_algorithms(strict, warn_only=warn_only)
    FRESH.fill_uninitialized_memory = filled
    torch.set_float32_matmul_precision(products)
    for place, precision in zip(_places(), precisions, strict=True):
        place.fp32_precision = precision


def _places() -> list[Any]:
    """Where torch keeps how float32 is computed; the first ones speak for all that say nothing."""
    backends: Any = torch.backends
    return [
        backends,
        backends.cudnn,
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
    ]


def _require_workspace() -> None:
    """UserError if cuBLAS, asked for a product, was used before without `CUBLAS`. It asks torch,
    not the environment, which may have come too late."""
    try:
        torch.ones(1, 1, device="cuda").mm(torch.ones(1, 1, device="cuda"))
    except RuntimeError as error:
        if "CUBLAS_WORKSPACE_CONFIG" not in str(error):
            raise
        name, value = next(iter(CUBLAS.items()))
        raise UserError(
            f"this process used cuBLAS before {name} was set: set {name}={value} before Python starts, and run it again"
        ) from error
