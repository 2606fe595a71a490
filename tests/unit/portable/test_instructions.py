"""16-bit products on a CPU are made as they are where the processor has instructions for them, else of float32."""

from __future__ import annotations

import pytest
import torch

from leap_repro.portable import instructions
from leap_repro.prune.learned.masked import linear, matrix_product


def with_instructions(found, monkeypatch):
    monkeypatch.setattr(instructions, "for_bfloat16", lambda: found)


def test_the_fastest_is_named_first(monkeypatch):
    for amx, avx512, name in ((True, True, "AMX"), (False, True, "AVX512-BF16"), (False, False, None)):
        instructions.for_bfloat16.cache_clear()
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda found=amx: found)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=avx512: found)
        assert instructions.for_bfloat16() == name
    instructions.for_bfloat16.cache_clear()


def test_only_bfloat16_has_them(monkeypatch):
    with_instructions("AMX", monkeypatch)
    as_they_are = {
        dtype: instructions.multiplies(torch.empty(1, dtype=dtype))
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    }
    assert as_they_are == {torch.float32: True, torch.float64: True, torch.bfloat16: True, torch.float16: False}
    with_instructions(None, monkeypatch)
    assert not instructions.multiplies(torch.empty(1, dtype=torch.bfloat16))


@pytest.mark.parametrize("found", ["AMX", "AVX512-BF16", None])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_is_that_of_float64(found, dtype, bias, monkeypatch):
    with_instructions(found, monkeypatch)
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((2, 5, 64), (32, 64)))
    added = torch.randn(32, generator=generator).to(dtype) if bias else None
    expected = x.double() @ weight.double().T + (added.double() if bias else 0)
    result = linear(x, weight, added)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=float(expected.abs().max()) * 2**-7)


def test_without_instructions_nothing_is_rounded_within(monkeypatch):
    with_instructions(None, monkeypatch)
    a, b = torch.randn(16, 300).bfloat16(), torch.randn(300, 16).bfloat16()
    torch.testing.assert_close(matrix_product(a, b), a.float() @ b.float(), rtol=0, atol=0)


def test_a_log_says_what_computes(monkeypatch):
    with_instructions("AMX", monkeypatch)
    assert instructions.in_words(torch.bfloat16) == "products in bfloat16 by AMX"
    assert instructions.in_words(torch.float32) == "products in float32"
    with_instructions(None, monkeypatch)
    assert "no instructions" in instructions.in_words(torch.bfloat16)
