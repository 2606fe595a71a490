"""Bernoulli logits harden to the very masks that the first release gave: digests taken from it, ties and all."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import pytest
import torch

from leap_repro.harden.tensors import harden_logits

SHAPES = {"model.layers.0.q.weight": (12, 20), "model.layers.0.up.weight": (33, 8), "model.layers.1.q.weight": (7, 5)}
GOLDEN = {
    ("exact", "0"): "c4f1c4811dea9890",
    ("exact", "0.5"): "6e9b235546f1d4f9",
    ("exact", "0.6"): "c5be32f178a82cd6",
    ("threshold", "0.5"): "722dddc7305975d1",
}


def logits():
    """Seeded logits rounded to thousandths, so that many are equal, at the budget's border too."""
    generator = torch.Generator().manual_seed(5)
    return {name: (torch.randn(shape, generator=generator) * 20).round() / 1000 for name, shape in SHAPES.items()}


def digest(masks):
    return hashlib.sha256(b"".join(masks[name].numpy().tobytes() for name in SHAPES)).hexdigest()[:16]


@pytest.mark.parametrize(("rule", "sparsity"), list(GOLDEN))
def test_masks_are_those_of_the_first_release(rule, sparsity):
    assert digest(harden_logits(logits(), Fraction(sparsity), rule)) == GOLDEN[rule, sparsity]
