"""Magnitude pruning drops the smallest |W| of the whole matrix and moves no weight."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from leap_repro.prune.job import Job
from leap_repro.prune.layerwise.layer import Layer
from leap_repro.prune.methods import magnitude


def layer(weight, sparsity):
    return Layer("layer", torch.tensor(weight), None, Fraction(sparsity))


@pytest.mark.parametrize("sparsity", ["0", "0.3", "0.5", "0.6", "0.99"])
@pytest.mark.parametrize("seed", range(3))
def test_the_mask_is_the_brute_force_one(sparsity, seed, drop_count):
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((7, 11)).astype(np.float32) * generator.uniform(0.1, 5, (7, 1)).astype("f4")
    flat = np.abs(weight.astype(np.float64)).ravel()
    expected = np.ones(flat.size, dtype=bool)
    expected[sorted(range(flat.size), key=lambda i: flat[i])[: drop_count(sparsity, flat.size)]] = False
    pruned = magnitude.prune_layer(layer(weight, sparsity), magnitude.Options())
    np.testing.assert_array_equal(pruned.keep.numpy(), expected.reshape(weight.shape))
    assert pruned.values is None


def test_the_sign_of_a_weight_does_not_matter():
    weight = np.array([[-4.0, 0.5, 3.0, -0.25], [1.0, -2.0, 0.125, 5.0]], dtype=np.float32)
    pruned = magnitude.prune_layer(layer(weight, "0.5"), magnitude.Options())
    assert pruned.keep.tolist() == [[True, False, True, False], [False, True, False, True]]


def test_ties_at_the_threshold_do_not_overshoot_the_budget():
    weight = np.array([[1.0, -1.0, 1.0, -1.0, 2.0]], dtype=np.float32)
    pruned = magnitude.prune_layer(layer(weight, "0.4"), magnitude.Options())
    assert pruned.keep.tolist() == [[False, False, True, True, True]]


def test_a_model_is_pruned_without_tokens_and_its_kept_weights_stay_as_they_are(tiny_llama):
    model, before = tiny_llama(), tiny_llama().state_dict()
    cell = magnitude.METHOD.prune_cell(Job(model, magnitude.Options(), Fraction("0.6"), seed=0))
    for name, weight in model.state_dict().items():
        keep = cell.tensors.get(f"{name}.keep", torch.ones_like(weight, dtype=torch.bool))
        assert torch.equal(weight, before[name] * keep)
