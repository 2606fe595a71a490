"""Mask training follows the paper's loss to its gradient, moves the logits alone, and resumes to the same bits."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from leap_repro.errors import UserError
from leap_repro.prune import leap
from leap_repro.prune.gates import logistic_noise
from leap_repro.prune.job import Job
from leap_repro.prune.trainer import MaskTrainer, Options, batch_indices, learning_rate, linear_schedule

COLUMNS = ["step", "loss_lm", "density_relaxed", "density_hard", "tau", "kappa", "learning_rate"]
COLUMNS += ["density_term", "norm_term", "loss"]


def prunable(model):
    return {f"{name}.weight": part.weight for name, part in model.named_modules() if name.endswith("_proj")}


def theta_of(model, seed=0, shift=0.0):
    count = sum(weight.numel() for weight in prunable(model).values())
    return shift + 0.05 * torch.randn(count, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def trainer(tiny_llama, tokens):
    """(options, density) -> a trainer of a fresh tiny model on eight sequences."""

    def build(density=0.4, seed=1, shift=0.0, dtype=torch.float32, **options):
        model = tiny_llama(dtype=dtype)
        options = Options(**{"steps": 10, "batch_size": 8, "micro_batch_size": 4} | options)
        return MaskTrainer(model, tokens[:8], theta_of(model, shift=shift), density, options, seed)

    return build


def paper_loss(model, theta, noise, tokens, density, t, steps):
    """The three terms of the loss at step t, in float64: L_LM, 7 |density - target|, -10 (1 - t/T) norms."""
    tau = 4 + (0.05 - 4) * t / (steps - 1)
    kappa = 25 + (350 - 25) * t / (steps - 1)
    gates = (1 + torch.tanh((kappa * theta + noise.double()) / tau / 2)) / 2  # the sigmoid, without overflow
    masked, norms, dense_norms, start = {}, 0.0, 0.0, 0
    for name, weight in prunable(model).items():
        masked[name] = weight * gates[start : start + weight.numel()].reshape(weight.shape)
        norms += (masked[name] ** 2).sum().sqrt()
        dense_norms += (weight**2).sum().sqrt()
        start += weight.numel()
    log_p = functional_call(model, masked, (tokens,)).logits[:, :-1].log_softmax(dim=-1)
    loss_lm = -log_p.gather(2, tokens[:, 1:, None]).mean()
    return loss_lm, 7 * (gates.mean() - density).abs(), -10 * (1 - t / steps) * norms / dense_norms


@pytest.mark.parametrize("t", [0, 4, 9])
@pytest.mark.parametrize(("shift", "density"), [(0.1, 0.4), (-0.1, 0.9)])
def test_a_steps_loss_and_gradient_are_those_of_the_papers_formula(t, shift, density, trainer, tiny_llama, tokens):
    ours = trainer(density, shift=shift)
    theta = ours.theta.detach().double().requires_grad_(True)
    noise = logistic_noise(theta.numel(), 1, t, torch.device("cpu"))
    row = ours.step(t)
    terms = paper_loss(tiny_llama().double(), theta, noise, tokens[:8], density, t, steps=10)
    assert [row["loss_lm"], row["density_term"], row["norm_term"]] == pytest.approx([*map(float, terms)], rel=1e-4)
    assert row["loss"] == pytest.approx(float(sum(terms)), rel=1e-4, abs=1e-4)
    gradients = [torch.autograd.grad(term, theta, retain_graph=True)[0] for term in terms]
    tolerance = 1e-4 * sum(gradients).norm()
    assert (ours.theta.grad.double() - sum(gradients)).norm() < tolerance
    assert all(gradient.norm() > 20 * tolerance for gradient in gradients)


def test_theta_follows_adam_with_the_papers_betas_and_no_weight_decay(trainer):
    ours = trainer(warmup_steps=2)
    expected = ours.theta.detach().double()
    first, second = torch.zeros_like(expected), torch.zeros_like(expected)
    for t, rate in enumerate([0.5e-3, 1e-3, 1e-3, 1e-3 * 0.5 * (1 + math.cos(math.pi / 8))]):
        ours.step(t)
        gradient = ours.theta.grad.double()
        first = 0.9 * first + 0.1 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        corrected = (first / (1 - 0.9 ** (t + 1))) / ((second / (1 - 0.95 ** (t + 1))).sqrt() + 1e-8)
        expected = expected - rate * corrected
    torch.testing.assert_close(ours.theta.detach().double(), expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 8])
def test_splitting_a_batch_changes_the_gradient_only_by_rounding(micro_batch_size, trainer):
    whole, split = trainer(micro_batch_size=4), trainer(micro_batch_size=micro_batch_size)
    rows = [run.step(2) for run in (whole, split)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)
    assert (whole.theta.grad - split.theta.grad).norm() < 1e-5 * whole.theta.grad.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_changes_theta_and_not_a_bit_of_the_model(dtype, trainer, tiny_llama):
    ours, before = trainer(dtype=dtype), tiny_llama(dtype=dtype).state_dict()
    theta = ours.theta.detach().clone()
    ours.run(None)
    assert ours.theta.dtype == torch.float32
    assert (ours.theta != theta).float().mean() > 0.99
    after = ours.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in ours.model.parameters())


class Killed(Exception):
    """What ends a training from outside in these tests."""


def kill_at_step(trainer, step):
    """Let the model die in the first forward pass of a step (two forward passes a step)."""
    passes = []

    def count(*_):
        passes.append(1)
        if len(passes) > 2 * step:
            raise Killed

    trainer.model.register_forward_pre_hook(count)


@pytest.mark.parametrize(("killed_at", "every", "resumed_at"), [(5, 2, 4), (7, 3, 6), (1, 1, 1), (2, 4, 0)])
def test_a_killed_run_resumes_to_the_same_bits(killed_at, every, resumed_at, trainer, tmp_path):
    undisturbed = trainer(steps=8)
    expected = undisturbed.run(None)
    killed = trainer(steps=8, checkpoint_every=every)
    kill_at_step(killed, killed_at)
    with pytest.raises(Killed):
        killed.run(tmp_path)
    resumed = trainer(steps=8, checkpoint_every=every, shift=9.0 if resumed_at else 0.0)
    taken = []
    resumed.model.register_forward_pre_hook(lambda *_: taken.append(1))
    rows = resumed.run(tmp_path)
    assert len(taken) == 2 * (8 - resumed_at)
    assert torch.equal(resumed.theta, undisturbed.theta)
    assert rows == expected
    assert pa.Table.from_pylist(rows).schema == pa.Table.from_pylist(expected).schema


def test_checkpoints_do_not_change_the_result(trainer, tmp_path):
    runs = [trainer(steps=5), trainer(steps=5, checkpoint_every=1)]
    rows = [run.run(folder) for run, folder in zip(runs, (None, tmp_path), strict=True)]
    assert rows[0] == rows[1]
    assert torch.equal(runs[0].theta, runs[1].theta)


def test_the_schedules_run_linearly_from_the_papers_start_to_its_end(trainer):
    rows = trainer(steps=7).run(None)
    np.testing.assert_allclose([row["tau"] for row in rows], np.linspace(4, 0.05, 7), rtol=1e-12)
    np.testing.assert_allclose([row["kappa"] for row in rows], np.linspace(25, 350, 7), rtol=1e-12)


@pytest.mark.parametrize("steps", [2, 3, 2000])
def test_a_schedule_starts_and_ends_exactly(steps):
    assert linear_schedule(4.0, 0.05, 0, steps) == 4.0
    assert linear_schedule(4.0, 0.05, steps - 1, steps) == pytest.approx(0.05, abs=1e-12)


def test_a_single_step_runs_at_the_start_of_the_schedule():
    assert linear_schedule(4.0, 0.05, 0, 1) == 4.0


def test_the_learning_rate_warms_up_linearly_and_falls_by_a_half_cosine():
    options = Options(steps=105, learning_rate=2.0, warmup_steps=5)
    rates = [learning_rate(options, step) for step in range(105)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[5:] == pytest.approx([1 + math.cos(math.pi * k / 100) for k in range(100)])


def test_the_log_has_a_row_a_step_and_its_columns_add_up(trainer):
    ours = trainer(steps=6)
    rows = ours.run(None)
    assert [list(row) for row in rows] == [COLUMNS] * 6
    assert [row["step"] for row in rows] == list(range(6))
    for row in rows:
        assert row["loss"] == pytest.approx(row["loss_lm"] + row["density_term"] + row["norm_term"])
        assert row["density_term"] == pytest.approx(7 * abs(row["density_relaxed"] - 0.4), abs=1e-5)
        assert row["learning_rate"] == pytest.approx(learning_rate(ours.options, row["step"]))
    assert rows[-1]["density_hard"] == pytest.approx((ours.theta.detach().numpy() > 0).mean())


def test_the_language_loss_falls_where_it_alone_is_trained(trainer):
    quiet = {"tau_start": 1.0, "tau_end": 1.0, "kappa_start": 10.0, "kappa_end": 10.0, "learning_rate": 0.1}
    rows = trainer(steps=60, density_weight=0.0, norm_weight=0.0, **quiet).run(None)
    first, last = (np.mean([row["loss_lm"] for row in part]) for part in (rows[:5], rows[-5:]))
    assert last < first - 0.5


@pytest.mark.parametrize(("density", "shift"), [(0.3, 0.05), (0.7, -0.05)])
def test_the_density_approaches_its_target(density, shift, trainer):
    rows = trainer(density, shift=shift, steps=150, learning_rate=1e-2).run(None)
    assert abs(rows[0]["density_hard"] - density) > 0.4
    assert abs(rows[-1]["density_relaxed"] - density) < 0.1
    assert abs(rows[-1]["density_hard"] - density) < 0.1


@given(sequences=st.integers(1, 40), batch_size=st.integers(1, 17), seed=st.integers(0, 5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_each_pass_reads_every_sequence_once(sequences, batch_size, seed, data):
    passes = data.draw(st.integers(1, 3))
    steps = math.ceil(passes * sequences / batch_size)
    read = torch.cat([batch_indices(step, batch_size, sequences, seed) for step in range(steps)]).tolist()
    assert len(read) == steps * batch_size
    for number in range(passes):
        assert sorted(read[number * sequences : (number + 1) * sequences]) == list(range(sequences))


def test_passes_and_seeds_have_their_own_orders():
    orders = {(seed, step): tuple(batch_indices(step, 50, 50, seed).tolist()) for seed in range(3) for step in range(3)}
    assert len(set(orders.values())) == len(orders)
    assert orders[1, 2] == tuple(batch_indices(2, 50, 50, 1).tolist())


def test_two_seeds_from_the_same_logits_train_to_different_logits(trainer):
    runs = [trainer(seed=seed, steps=3, batch_size=4) for seed in (1, 2)]
    losses = [[row["loss_lm"] for row in run.run(None)] for run in runs]
    assert losses[0] != losses[1]
    assert not torch.equal(runs[0].theta, runs[1].theta)


def test_a_batch_that_micro_batches_do_not_divide_is_refused():
    with pytest.raises(UserError, match=r"batch_size 6 .* micro_batch_size 4"):
        Options(batch_size=6, micro_batch_size=4)


def test_a_cell_has_logits_for_each_matrix_that_start_on_the_warm_starts_side(tiny_llama, tokens):
    model = tiny_llama()
    generator = torch.Generator().manual_seed(3)
    warm = {name: torch.rand(w.shape, generator=generator) < 0.4 for name, w in prunable(model).items()}
    options = Options(steps=1, batch_size=4, micro_batch_size=4, learning_rate=0.0)
    cell = leap.prune_cell(Job(model, options, Fraction("0.6"), seed=0, tokens=tokens, warm_start=warm))
    assert set(cell.tensors) == {f"{name}.logits" for name in warm}
    for name, kept in warm.items():
        logits = cell.tensors[f"{name}.logits"]
        assert logits.shape == kept.shape
        assert ((logits > 0) == kept).float().mean() > 0.97
    (row,) = cell.log
    assert row["density_term"] == pytest.approx(7 * abs(row["density_relaxed"] - 0.4), abs=1e-5)


def test_training_without_tokens_is_refused(tiny_llama):
    with pytest.raises(UserError, match="--tokens"):
        leap.prune_cell(Job(tiny_llama(), Options(steps=1), Fraction("0.5"), seed=0))
