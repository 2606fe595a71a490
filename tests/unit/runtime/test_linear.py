"""Packed layers against dense ones in float64, however they are called; and what is prepared against what is not."""

import copy

import pytest
import torch
from torch import nn

from leap_repro.runtime.kernels import MOST_TOKENS, PackedMatrix
from leap_repro.runtime.linear import Head, PackedLinear

DTYPES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
SHAPES = [(1, 1), (5, 7), (33, 64), (8, 130), (200, 96)]


def matrix(shape, dtype):
    """(a matrix with about half its weights at 0, packed)"""
    weight = torch.randn(shape).to(dtype)
    weight[torch.rand(shape) < 0.5] = 0
    return weight, PackedMatrix.from_dense(weight)


@pytest.mark.parametrize("tokens", [(1,), (1, 1), (3,), (2, 5), (40,), (0,)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_computes_what_the_dense_layer_does(dtype, shape, tokens):
    torch.manual_seed(0)
    weight, packed = matrix(shape, dtype)
    bias, x = torch.randn(shape[0]).to(dtype), torch.randn(*tokens, shape[1]).to(dtype)
    found = PackedLinear(packed, bias)(x)
    expected = nn.functional.linear(x.double(), weight.double(), bias.double())
    assert found.dtype == dtype
    assert found.shape == expected.shape
    assert torch.allclose(found.double(), expected, rtol=DTYPES[dtype], atol=DTYPES[dtype] * shape[1] ** 0.5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prepared_product_has_the_bits_of_one_that_is_not(dtype, shape):
    """Also of a view that is not contiguous, of a token without leading dimensions, and of a copied layer."""
    torch.manual_seed(1)
    _, packed = matrix(shape, dtype)
    prepared, layer = packed.prepared(), copy.deepcopy(PackedLinear(packed, None))
    wide = torch.randn(4, 2 * shape[1]).to(dtype)
    for x in (wide[:1, : shape[1]], wide[:1, ::2], wide[0, ::2], wide[:, ::2], wide[:1, None, ::2]):
        expected = packed.multiply(x)
        assert torch.equal(prepared(x), expected)
        assert torch.equal(layer(x), expected)


def test_inputs_of_another_width_are_refused(refused):
    _, packed = matrix((4, 8), torch.float32)
    for x in (torch.ones(1, 7), torch.ones(8, 1), torch.ones(2, 4)):
        with refused("8 columns"):
            PackedLinear(packed, None)(x)


def test_a_gradient_is_refused_and_one_that_nobody_asks_for_is_not(refused):
    layer, x = PackedLinear(matrix((4, 8), torch.float32)[1], None), torch.ones(1, 8, requires_grad=True)
    with refused("no gradients", "run='dense'"):
        layer(x)
    with torch.no_grad():
        assert layer(x).shape == (1, 4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, MOST_TOKENS, MOST_TOKENS + 1])
def test_a_head_is_the_linear_layer_that_it_was(dtype, tokens):
    torch.manual_seed(0)
    layer = nn.Linear(24, 50).to(dtype).requires_grad_(False)
    x = torch.randn(1, tokens, 24).to(dtype)
    expected, weight = layer(x), layer.weight
    layer.__class__ = Head
    assert layer.weight is weight
    assert torch.allclose(layer(x).float(), expected.float(), rtol=DTYPES[dtype], atol=DTYPES[dtype])
