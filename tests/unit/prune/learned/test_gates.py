"""The relaxed gates: logistic noise, the warm start of the logits, the formula, and the same draw for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats

from leap_repro.prune.learned.gates import Noise, Relaxation, bernoulli_logits, relaxed_gates

CPU = torch.device("cpu")


def logistic_noise(count, seed, step, matrix=0):
    return Noise(CPU, seed, step, matrix).logistic(count)


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (0, 1999), (1, 0), (12, 345)])
def test_the_noise_is_standard_logistic(seed, step):
    noise = logistic_noise(20_000, seed, step).double().numpy()
    assert stats.kstest(noise, stats.logistic.cdf).pvalue > 0.005


def test_the_noise_is_the_difference_of_two_gumbels():
    gumbels = stats.gumbel_r.rvs(size=(2, 20_000), random_state=0)
    noise = logistic_noise(20_000, 3, 4).numpy()
    assert stats.ks_2samp(noise, gumbels[1] - gumbels[0]).pvalue > 0.005


def test_the_noise_has_the_logistic_tails_and_is_finite_where_the_uniform_draw_is_zero():
    # 2^26 draws of 24 bits: about four uniform zeros, whose logit would be infinite.
    extremes = torch.stack([torch.stack(logistic_noise(1 << 22, 0, step).aminmax()) for step in range(16)])
    assert torch.isfinite(extremes).all()
    assert extremes[:, 0].max() < -13
    assert extremes[:, 1].min() > 13


def test_the_same_seed_and_step_draw_the_same_noise():
    assert torch.equal(logistic_noise(1000, 5, 6), logistic_noise(1000, 5, 6))


@pytest.mark.parametrize(
    ("one", "other"), [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 7), (2, 7)), ((0, 1), (1, 0)), ((3, 2), (2, 3))]
)
def test_another_seed_or_step_draws_independent_noise(one, other):
    first, second = (logistic_noise(10_000, seed, step).numpy() for seed, step in (one, other))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_each_matrix_draws_its_own_noise_and_its_own_logits():
    first, second = (logistic_noise(10_000, 0, 0, matrix).numpy() for matrix in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert not torch.equal(bernoulli_logits((50,), None, 0, 0), bernoulli_logits((50,), None, 0, 1))


def test_gumbel_noise_is_gumbel_and_finite():
    noise = Noise(CPU, 0, 1, 2).gumbel(20_000)
    assert stats.kstest(noise.double().numpy(), stats.gumbel_r.cdf).pvalue > 0.005
    extremes = torch.stack([torch.stack(Noise(CPU, 0, step, 0).gumbel(1 << 22).aminmax()) for step in range(8)])
    assert torch.isfinite(extremes).all()
    assert extremes[:, 1].max() > 13


def test_drawing_noise_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    logistic_noise(10, 0, 0)
    bernoulli_logits((10,), None, 0, 0)
    assert torch.equal(torch.rand(3), expected)


def test_logits_without_a_warm_start_are_normal_with_the_papers_deviation():
    theta = bernoulli_logits((20_000,), None, 1, 0)
    assert theta.dtype == torch.float32
    assert stats.kstest(theta.double().numpy(), stats.norm(0, 0.014).cdf).pvalue > 0.005


def test_the_warm_start_shifts_each_logit_by_three_deviations_with_its_sign():
    kept = torch.rand(20_000, generator=torch.Generator().manual_seed(0)) < 0.4
    plain = bernoulli_logits((20_000,), None, 2, 0).double().numpy()
    shifted = bernoulli_logits((20_000,), kept, 2, 0).double().numpy()
    signs = np.where(kept.numpy(), 1.0, -1.0)
    np.testing.assert_allclose(shifted - plain, 3 * plain.std(ddof=1) * signs, rtol=1e-4)
    assert shifted[kept.numpy()].mean() == pytest.approx(3 * 0.014, rel=0.02)
    assert np.mean((shifted > 0) == kept.numpy()) > 0.997


def test_logits_are_the_same_for_the_same_seed_and_differ_for_another():
    assert torch.equal(bernoulli_logits((500,), None, 3, 0), bernoulli_logits((500,), None, 3, 0))
    assert not torch.equal(bernoulli_logits((500,), None, 3, 0), bernoulli_logits((500,), None, 4, 0))


@pytest.mark.parametrize(("kappa", "tau"), [(25.0, 4.0), (350.0, 0.05), (100.0, 1.0)])
def test_a_gate_is_the_sigmoid_of_scaled_logit_plus_noise_over_temperature(kappa, tau):
    generator = np.random.default_rng(0)
    theta, noise = 0.05 * generator.standard_normal(500), generator.logistic(size=500)
    gates = relaxed_gates(torch.tensor(theta), torch.tensor(noise), Relaxation(kappa, tau, kappa)).numpy()
    np.testing.assert_allclose(gates, special.expit((kappa * theta + noise) / tau), rtol=1e-4)


def test_hard_gates_are_exactly_zero_or_one_with_the_soft_gates_gradient():
    generator = torch.Generator().manual_seed(0)
    theta, noise = 0.05 * torch.randn(500, generator=generator), torch.randn(500, generator=generator)
    results = []
    for hard in (False, True):
        leaf = theta.clone().requires_grad_(True)
        gates = relaxed_gates(leaf, noise.clone(), Relaxation(30.0, 0.5, 30.0, hard))
        results.append((gates.detach(), torch.autograd.grad(gates.sum(), leaf)[0]))
    (soft, soft_slope), (hard, hard_slope) = results
    assert set(hard.tolist()) == {0.0, 1.0}
    assert torch.equal(hard, (soft > 0.5).float())
    assert torch.equal(hard_slope, soft_slope)
