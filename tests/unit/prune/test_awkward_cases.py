"""Every layer-wise method keeps exact counts, finite values and true zeros on layers that break careless code."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from leap_repro.errors import UserError
from leap_repro.prune.job import Job
from leap_repro.prune.methods import admm, alps, dense, dsnot, magnitude, ria, sparsegpt, thanos, wanda

METHODS = {
    "magnitude": (magnitude, magnitude.Options()),
    "wanda": (wanda, wanda.Options()),
    "ria": (ria, ria.Options()),
    "ria-row": (ria, ria.Options(group="row")),
    "dsnot": (dsnot, dsnot.Options()),
    "dsnot-magnitude": (dsnot, dsnot.Options(start="magnitude", threshold=0.0)),
    "sparsegpt": (sparsegpt, sparsegpt.Options()),
    "sparsegpt-blocks-of-5": (sparsegpt, sparsegpt.Options(block_size=5)),
    "thanos": (thanos, thanos.Options()),
    "thanos-blocks-of-5": (thanos, thanos.Options(block_size=5)),
    "admm": (admm, admm.Options()),
    "admm-as-released": (admm, admm.Options(schedule="as_released")),
    "admm-row": (admm, admm.Options(group="row")),
    "alps": (alps, alps.Options()),
    "alps-as-released": (alps, alps.Options(schedule="as_released")),
}
SPARSITIES = ["0", "0.5", "0.6", "0.99"]


def normal(*shape):
    return np.random.default_rng(5).standard_normal(shape)


def dead_inputs(inputs):
    inputs[:, [0, 3, 12]] = 0.0
    return normal(6, 13), inputs


CASES = {
    "dead inputs": dead_inputs,
    "all inputs dead": lambda inputs: (normal(6, 13), 0 * inputs),
    "equal weights": lambda inputs: (np.full((6, 13), 0.25), inputs),
    "zero weights": lambda inputs: (np.zeros((6, 13)), inputs),
    "equal inputs": lambda inputs: (normal(6, 13), np.ones_like(inputs)),
    "one row": lambda inputs: (normal(1, 13), inputs),
    "one column": lambda inputs: (normal(9, 1), inputs[:, :1]),
    "one weight": lambda inputs: (normal(1, 1), inputs[:, :1]),
    "one token": lambda inputs: (normal(6, 13), inputs[:1]),
    "fewer tokens than inputs": lambda inputs: (normal(6, 13), inputs[:4]),
    "huge inputs": lambda inputs: (normal(6, 13), 1e6 * inputs),
    "tiny inputs": lambda inputs: (normal(6, 13), 1e-6 * inputs),
}


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", METHODS)
def test_counts_are_exact_values_finite_and_dropped_weights_zero(
    method, case, sparsity, correlated_inputs, make_layer, drop_count
):
    module, options = METHODS[method]
    weight, inputs = CASES[case](correlated_inputs(40, 13, seed=6))
    pruned = module.prune_layer(make_layer(weight, inputs, sparsity), options)
    assert pruned.keep.shape == weight.shape
    assert pruned.keep.dtype == torch.bool
    assert int(pruned.keep.sum()) == weight.size - drop_count(sparsity, weight.size)
    if pruned.values is not None:
        assert pruned.values.dtype == torch.float32
        assert torch.isfinite(pruned.values).all()
        assert not pruned.values[~pruned.keep].any()


@pytest.mark.parametrize("method", [name for name in METHODS if "magnitude" not in name])
def test_dead_inputs_lose_their_weights_first(method, correlated_inputs, make_layer):
    module, options = METHODS[method]
    inputs = correlated_inputs(40, 13, seed=6)
    inputs[:, [0, 3, 12]] = 0.0
    keep = module.prune_layer(make_layer(normal(6, 13), inputs, "0.5"), options).keep
    assert not keep[:, [0, 3, 12]].any()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_moves_at_sparsity_zero(method, correlated_inputs, make_layer):
    module, options = METHODS[method]
    layer = make_layer(normal(6, 13), correlated_inputs(40, 13, seed=6), "0")
    pruned = module.prune_layer(layer, options)
    values = layer.weight if pruned.values is None else pruned.values
    torch.testing.assert_close(values, layer.weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_model_of_either_dtype_holds_just_what_the_cell_says(method, sparsity, dtype, tiny_llama, tokens, drop_count):
    module, options = METHODS[method]
    model, before = tiny_llama(dtype=dtype), tiny_llama(dtype=dtype).state_dict()
    cell = module.METHOD.prune_cell(Job(model, options, Fraction(sparsity), seed=0, tokens=tokens))
    linears = [f"{name}.weight" for name, part in model.named_modules() if name.endswith("_proj")]
    assert {name.removesuffix(".keep") for name in cell.tensors if name.endswith(".keep")} == set(linears)
    for name, weight in model.state_dict().items():
        assert weight.dtype == dtype
        if name not in linears:
            assert torch.equal(weight, before[name])
            continue
        keep = cell.tensors[f"{name}.keep"]
        assert int(keep.sum()) == keep.numel() - drop_count(sparsity, keep.numel())
        assert torch.isfinite(weight).all()
        assert torch.equal(weight, cell.tensors.get(f"{name}.values", before[name]) * keep)


def test_dense_keeps_every_weight_and_refuses_a_sparsity(tiny_llama):
    model, before = tiny_llama(), tiny_llama().state_dict()
    cell = dense.METHOD.prune_cell(Job(model, dense.Options(), Fraction(0), seed=0))
    assert all(keep.all() for keep in cell.tensors.values())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    with pytest.raises(UserError, match=r"dense.*0\.5"):
        dense.METHOD.prune_cell(Job(model, dense.Options(), Fraction("0.5"), seed=0))
