"""Noise by its place: Philox4x32-10's published vectors, the same bits for any part, and the distributions."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from leap_repro.prune.job import Job
from leap_repro.prune.learned import philox as module
from leap_repro.prune.learned.gates import EDGE, CounterNoise
from leap_repro.prune.learned.philox import philox, uniforms
from leap_repro.prune.methods import leap, maskllm, patch

CPU = torch.device("cpu")
ONES = 0xFFFFFFFF
VECTORS = {  # Random123's kat_vectors, "philox4x32 10": counter, key, words
    "zeros": ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    "ones": ((ONES,) * 4, ONES << 32 | ONES, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    "pi": (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
}


@pytest.mark.parametrize("vector", VECTORS)
def test_words_are_those_of_the_published_vectors(vector):
    counter, key, expected = VECTORS[vector]
    found = philox(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(int(word) for word in found) == expected


def by_hand(counter, key):
    """Philox4x32-10 of one counter in Python's integers, which do not overflow."""
    (a, b, c, d), low, high = counter, key & ONES, key >> 32
    for turn in range(10):
        k0, k1 = (low + turn * 0x9E3779B9) & ONES, (high + turn * 0xBB67AE85) & ONES
        second, first = c * 0xCD9E8D57, a * 0xD2511F53
        a, b, c, d = second >> 32 ^ b ^ k0, second & ONES, first >> 32 ^ d ^ k1, first & ONES
    return a, b, c, d


def test_position_p_has_word_p_mod_4_of_counter_p_div_4_and_of_its_draw():
    first, key = 2**34 - 3, 0xFEDCBA9876543210
    expected = []
    for p in range(first, first + 9):
        word = by_hand((p // 4 & ONES, p // 4 >> 32, 5, 0), key)[p % 4]
        expected.append(((word >> 10) + 0.5) / 2**22)
    assert uniforms(key, 5, first, 9, CPU).tolist() == expected


@pytest.mark.parametrize("cuts", [(0, 1000), (0, 1, 2, 999, 1000), (0, 250, 500, 750, 1000), (0, 333, 1000)])
def test_parts_of_a_matrix_are_parts_of_its_noise(cuts, monkeypatch):
    whole = uniforms(7, 0, 0, 1000, CPU)
    monkeypatch.setitem(module.AT_ONCE, "cpu", 129)
    parts = [uniforms(7, 0, start, end - start, CPU) for start, end in pairwise(cuts)]
    assert torch.equal(torch.cat(parts), whole)


def test_numbers_lie_within_the_edges_evenly_about_a_half():
    words = torch.tensor([0, ONES])
    smallest, largest = ((words >> 10).float() + 0.5) * 2.0**-22
    assert EDGE < smallest == 2.0**-23
    assert 1 - largest == smallest
    found = uniforms(3, 0, 0, 1 << 20, CPU)
    assert found.min() > EDGE
    assert found.max() < 1 - EDGE
    assert abs(found.double().mean() - 0.5) < 4 / np.sqrt(12 * len(found))


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (1, 1999)])
def test_the_noise_is_logistic_and_gumbel(seed, step):
    noise = CounterNoise(CPU, seed, step, 0)
    assert stats.kstest(noise.logistic(20_000).double().numpy(), stats.logistic.cdf).pvalue > 0.005
    assert stats.kstest(noise.gumbel(20_000).double().numpy(), stats.gumbel_r.cdf).pvalue > 0.005


def test_the_tails_are_there():
    noise = CounterNoise(CPU, 0, 0, 0).logistic(1 << 22)
    assert torch.isfinite(noise).all()
    assert noise.min() < -13
    assert noise.max() > 13


def test_the_same_numbers_draw_the_same_and_a_second_draw_others():
    one, other = CounterNoise(CPU, 1, 2, 3), CounterNoise(CPU, 1, 2, 3)
    first, second = one.logistic(50, 20), one.logistic(50, 20)
    assert torch.equal(other.logistic(1000).view(50, 20), first)
    assert torch.equal(other.logistic(50, 20), second)
    assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.1


@pytest.mark.parametrize("other", [(0, 1, 0), (1, 0, 0), (0, 0, 1), (0, 0, 0, 0)])
def test_steps_seeds_matrices_and_micro_batches_are_independent(other):
    first, second = (CounterNoise(CPU, *numbers).logistic(10_000).numpy() for numbers in ((0, 0, 0), other))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.05


OPTIONS = {"steps": 6, "batch_size": 4, "micro_batch_size": 2, "noise_source": "counter"}
METHODS = {
    "leap": (leap, {}, "0.4"),
    "maskllm": (maskllm, {}, "0.5"),
    "patch": (patch, {"tile": 8, "learn": "joint"}, "0.4"),
}


class Killed(Exception):
    """What ends a training from outside."""


@pytest.fixture(params=METHODS)
def build(request, tiny_llama, tokens):
    """(more options) -> a fresh trainer of one method with counted noise on a one-block model."""
    module, options, sparsity = METHODS[request.param]

    def make(**more):
        given = module.Options(**OPTIONS | options | more)
        return module.trainer(Job(tiny_llama(blocks=1), given, Fraction(sparsity), 3, tokens[:8]))

    return make


def logits(trainer):
    return torch.cat([leaf.detach().flatten() for leaf in trainer.optimizer.parameters])


def test_every_gate_trains_on_counted_noise_and_goes_on_from_a_checkpoint_to_the_same_bits(build, tmp_path):
    undisturbed, other, killed, resumed = build(), build(noise_source="generator"), build(), build()
    for run in (undisturbed, other):
        run.run(None)
    assert not torch.equal(logits(undisturbed), logits(other))
    step = killed.step
    killed.step = lambda number: step(number) if number < 4 else (_ for _ in ()).throw(Killed)
    with pytest.raises(Killed):
        killed.run(tmp_path)
    resumed.run(tmp_path)
    assert resumed.rows == undisturbed.rows
    assert torch.equal(logits(resumed), logits(undisturbed))


def test_masks_made_again_are_those_that_were_kept(build):
    kept, remade = build(), build(gradient_checkpointing=True)
    for run in (kept, remade):
        run.run(None)
    torch.testing.assert_close(logits(kept), logits(remade), rtol=1e-5, atol=1e-7)
