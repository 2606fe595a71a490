"""Shared by the pruning tests: tiny random layers and models, and oracles of budgets that use no code under test."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from leap_repro.prune.layerwise.layer import Layer
from leap_repro.prune.layerwise.statistics import InputStatistics


def _half_even(value: Fraction) -> int:
    """The nearest integer of an exact fraction, halves to even."""
    below = math.floor(value)
    rest = value - below
    return below + int(rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1))


def _drop_count(sparsity: str | Fraction, count: int) -> int:
    return _half_even(Fraction(sparsity) * count)


def _correlated_inputs(tokens: int, features: int, seed: int) -> np.ndarray:
    """Inputs [tokens, features] whose features are correlated and differ in size, in float32's values."""
    generator = np.random.default_rng(seed)
    mixing = np.eye(features) + 0.6 * generator.standard_normal((features, features)) / math.sqrt(features)
    sizes = generator.uniform(0.3, 3.0, features)
    return (generator.standard_normal((tokens, features)) @ mixing * sizes).astype(np.float32)


def _make_layer(weight, inputs, sparsity, needs_gram=True, needs_sums=True) -> Layer:
    weight, inputs = torch.as_tensor(weight, dtype=torch.float32), torch.as_tensor(inputs, dtype=torch.float32)
    statistics = InputStatistics(weight.shape[1], weight.device, needs_gram, needs_sums)
    half = len(inputs) // 2
    for batch in (inputs[:half], inputs[half:]):
        statistics.add(batch)
    return Layer("model.layers.3.mlp.up_proj.weight", weight.clone(), statistics, Fraction(sparsity))


def _tiny_llama(blocks=2, dtype=torch.float32, seed=0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False).to(dtype)


@pytest.fixture(scope="session")
def drop_count():
    """(sparsity, count) -> how many weights must go."""
    return _drop_count


@pytest.fixture(scope="session")
def correlated_inputs():
    """(tokens, features, seed) -> inputs as float32 numpy."""
    return _correlated_inputs


@pytest.fixture(scope="session")
def make_layer():
    """(weight, inputs, sparsity, needs_gram=True) -> a layer with its statistics from two batches."""
    return _make_layer


@pytest.fixture(scope="session")
def random_layer():
    """(rows, columns, sparsity, seed) -> a layer, and its weight and inputs in float64."""

    def build(rows, columns, sparsity, seed=0, needs_gram=True, dead=(), tokens=96):
        weight = np.random.default_rng(1000 + seed).standard_normal((rows, columns)).astype(np.float32)
        inputs = _correlated_inputs(tokens, columns, seed)
        inputs[:, list(dead)] = 0.0
        layer = _make_layer(weight, inputs, sparsity, needs_gram)
        return layer, weight.astype(np.float64), inputs.astype(np.float64)

    return build


@pytest.fixture(scope="session")
def tiny_llama():
    """(blocks=2, dtype, seed) -> a new random model of hidden size 16."""
    return _tiny_llama


@pytest.fixture(scope="session")
def tokens():
    """Token ids [20, 12]: more than one calibration batch."""
    return torch.randint(0, 40, (20, 12), generator=torch.Generator().manual_seed(7))
