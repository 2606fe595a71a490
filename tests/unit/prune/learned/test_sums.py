"""Gradients of masked weights are added up over micro-batches, on a GPU within the product itself."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from leap_repro.prune.learned.masked import with_product


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("instructions", ["AMX", None])
def test_a_sum_with_a_product_is_that_of_float64(dtype, started, instructions, monkeypatch):
    """To the rounding of one product where the processor multiplies bfloat16 itself, else to float32's."""
    monkeypatch.setattr("leap_repro.portable.instructions.for_bfloat16", lambda: instructions)
    generator = torch.Generator().manual_seed(0)
    a, b, total = (torch.randn(48, 48, generator=generator) for _ in range(3))
    a, b = a.to(dtype), b.to(dtype)
    expected = a.double() @ b.double() + (total.double() if started else 0)
    before = total.double()
    found = with_product(total if started else None, a.T.contiguous().T, b)
    assert found.dtype == torch.float32
    rounding = 2**-8 if instructions and dtype == torch.bfloat16 else 1e-5
    product = float((expected - (before if started else 0)).abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=max(1e-5, rounding * product))
    assert (found is total) == started


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gpus_sum_stays_in_float32_and_in_its_place(dtype, monkeypatch):
    """As far as shapes and types go, which need no GPU.

    Fake tensors of torch 2.11 know the result of `mm` with `out_dtype`, but not of `addmm` with it.
    """

    def addmm(total, a, b, *, out_dtype, out):
        product = torch.mm(a, b, out_dtype=out_dtype)
        for tensor in (total, out):
            assert (tensor.dtype, tensor.shape) == (product.dtype, product.shape)
        return out

    monkeypatch.setattr(torch, "addmm", addmm)
    with FakeTensorMode():
        a, b = torch.empty(8, 16, dtype=dtype, device="cuda"), torch.empty(8, 32, dtype=dtype, device="cuda")
        total = with_product(None, a.T, b)
        assert (total.dtype, total.shape) == (torch.float32, (16, 32))
        assert with_product(total, a.T, b) is total


def test_torch_has_the_sum_that_a_gpu_uses():
    names = [argument.name for argument in torch.ops.aten.addmm.dtype_out._schema.arguments]
    assert names == ["self", "mat1", "mat2", "out_dtype", "beta", "alpha", "out"]
    operator = "aten::addmm.dtype_out"
    if torch.version.cuda:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(operator, "CUDA")
