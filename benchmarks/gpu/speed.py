"""The device itself, the gates' kernels, and the one-shot methods: right, and how fast."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from gates import copy_speed, device_seconds
from measure import REPOSITORY, make_layer
from torch import Tensor

from gpu.rows import Row, Rows
from gpu.shapes import seconds_of
from leap_repro.errors import UserError
from leap_repro.models.load import best_device
from leap_repro.prune.layerwise.layer import PrunedLayer
from leap_repro.prune.learned.declaration import Relaxation
from leap_repro.prune.learned.fused import least_bytes, logit_gradient, masked_product
from leap_repro.prune.learned.gates import BernoulliGate, CounterNoise
from leap_repro.prune.learned.kernels import kernels_run
from leap_repro.prune.run import load_method
from leap_repro.store.machine import versions

RELAXATION = Relaxation(187.5, 2.0, 187.5)
"""The middle of the paper's annealing."""
MATRICES = ((61, 71), (4864, 896), (8192, 2048), (14336, 4096))
RULES = ("wanda", "sparsegpt", "admm", "thanos")
SLOW = "thanos"
"""Only the smaller matrix."""
CURVE_SECONDS = 240


def env(rows: Rows, tiny: bool) -> None:
    """Versions, and what this device's memory and its matrix products reach."""
    rows.measure({"part": "env"}, lambda: versions() | _device(256 if tiny else 8192))


def _device(size: int) -> Row:
    device = best_device()
    found: dict[str, Any] = {"copy_tb_s": copy_speed() / 1e12}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["multiprocessors"] = properties.multi_processor_count
        found["memory_gb"] = properties.total_memory / 1e9
    for dtype in (torch.bfloat16, torch.float32):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds = device_seconds(lambda a=a, b=b: lambda: a @ b)
        found[f"{str(dtype).removeprefix('torch.')}_tflops"] = 2 * size**3 / seconds / 1e12
    return found


def kernels(rows: Rows, tiny: bool) -> None:
    """The gates' kernels beside plain operators, and the share of a copy's speed they reach."""
    for shape in MATRICES[:1] if tiny else MATRICES:
        for logits in (torch.float32, torch.bfloat16):
            key = {"part": "kernels", "rows": shape[0], "columns": shape[1], "logits": str(logits)}
            rows.measure(key, lambda shape=shape, logits=logits: _kernels_row(shape, logits))


def _kernels_row(shape: tuple[int, int], logits: torch.dtype) -> Row:
    """Largest relative errors in norm, whether a second run gives the same bits, and speeds."""
    device = best_device()
    if not kernels_run(device) and os.environ.get("TRITON_INTERPRET") != "1":
        raise UserError("the kernels need a GPU and triton, or TRITON_INTERPRET=1 for a rehearsal")
    theta = (torch.randn(shape, device=device) * 0.03).to(logits)
    weight = torch.randn(shape, device=device).bfloat16()
    upstream = torch.randn(shape, device=device)
    key = CounterNoise(device, 0).key
    forth = partial(masked_product, theta, weight, key, RELAXATION)
    back = partial(logit_gradient, theta, weight, upstream, key, RELAXATION, (0.0, 0.0))
    mask, at_theta = _plainly(theta, weight, upstream)
    product, sums = forth()
    copied, n = copy_speed(), theta.numel()
    dtypes = (logits, weight.dtype, upstream.dtype)
    speeds = {
        "forward": n * least_bytes(*dtypes[:2]) / device_seconds(lambda: forth),
        "backward": n * least_bytes(*dtypes) / device_seconds(lambda: back),
    }
    return {
        "product_error": _error(product, (weight.float() * mask).to(product.dtype)),
        "gradient_error": _error(back(), at_theta),
        "sum_error": abs(sums[0].item() / mask.double().sum().item() - 1),
        "same_bits_again": product.equal(forth()[0]) and back().equal(back()),
        **{f"{name}_tb_s": speed / 1e12 for name, speed in speeds.items()},
        **{f"{name}_of_copy": speed / copied for name, speed in speeds.items()},
    }


def _plainly(theta: Tensor, weight: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """The mask, and the gradient at theta, by autograd."""
    leaf = theta.clone().requires_grad_(True)
    mask = BernoulliGate(leaf).mask(CounterNoise(theta.device, 0), RELAXATION)
    (at_theta,) = torch.autograd.grad((weight.float() * mask * upstream).sum(), leaf)
    return mask.detach(), at_theta


def _error(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def curve(rows: Rows, tiny: bool) -> None:
    """`tools/loss_curve.py`: 50 steps on a bundled model, loss by loss beside those of a CPU."""
    for dtype in ("float32",) if tiny else ("float32", "bfloat16"):
        rows.measure({"part": "curve", "dtype": dtype}, lambda dtype=dtype: _curve_row(dtype))


def _curve_row(dtype: str) -> Row:
    command = [sys.executable, "tools/loss_curve.py", "compare", "--dtype", dtype]
    limits = {"cwd": REPOSITORY, "timeout": CURVE_SECONDS}
    found = subprocess.run(command, capture_output=True, text=True, **limits)
    if found.returncode not in (0, 3):
        raise RuntimeError(found.stderr[-200:])
    return {"within_bound": found.returncode == 0, "said": found.stdout.strip()}


def one_shot(rows: Rows, tiny: bool) -> None:
    """Choosing the smallest of many by `kthvalue` and by a sort; each rule on matrices of 8B."""
    for numbers in (2**12,) if tiny else (4096 * 128, 4096**2, 14336 * 4096):
        key = {"part": "select", "numbers": numbers}
        rows.measure(key, lambda numbers=numbers: _select_row(numbers))
    shapes = ((64, 64),) if tiny else ((4096, 4096), (14336, 4096))
    for name in RULES:
        for shape in shapes[:1] if name == SLOW else shapes:
            key = {"part": "one_shot", "method": name, "rows": shape[0], "columns": shape[1]}
            rows.measure(key, partial(_rule_row, shape, name))


def _select_row(numbers: int) -> Row:
    drawn = torch.randn(numbers, device=best_device())
    half = numbers // 2
    with in_any_order():  # which is all that kthvalue offers on a GPU
        by_rank = device_seconds(lambda: lambda: drawn.kthvalue(half))
        same = drawn.kthvalue(half).values.equal(drawn.sort().values[half - 1])
    by_sort = device_seconds(lambda: lambda: drawn.sort().values[half - 1])
    return {"kthvalue_seconds": by_rank, "sort_seconds": by_sort, "same": same}


@contextmanager
def in_any_order() -> Iterator[None]:
    """Within it, torch may use operations that add in an order of their own."""
    strict = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict)


def _rule_row(shape: tuple[int, int], name: str) -> Row:
    """Seconds for one matrix, its statistics collected before."""
    method, options = load_method(name, {})
    layer = make_layer(*shape, Fraction(1, 2), best_device().type)

    def prune() -> PrunedLayer:
        return method.rule(replace(layer, weight=layer.weight.clone()), options)

    with torch.no_grad():
        kept = int(prune().keep.sum())
        seconds = seconds_of(prune, repeats=1)
    return {"seconds": seconds, "kept": kept, "weights": layer.weight.numel()}
