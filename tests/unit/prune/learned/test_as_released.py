"""The authors' training: noise for each forward pass, gates in bfloat16, schedules that end a step late."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch.func import functional_call
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from leap_repro.prune.job import Job
from leap_repro.prune.learned.declaration import Relaxation
from leap_repro.prune.learned.gates import Noise, relaxed_gates
from leap_repro.prune.methods import leap
from leap_repro.prune.methods.leap import Options

CPU = torch.device("cpu")


def test_schedules_end_one_step_after_the_last():
    """The figures that the public code's loop gives at its 2,000th step."""
    last = Options(steps=2000, timing="as_released").relaxation(1999)
    assert last.tau == pytest.approx(0.051975)
    assert last.kappa == pytest.approx(349.8375)
    assert Options(steps=2000, timing="as_released").relaxation(0) == Options(steps=2000).relaxation(0)


@pytest.mark.parametrize(
    ("decay", "made"), [("cosine", get_cosine_schedule_with_warmup), ("linear", get_linear_schedule_with_warmup)]
)
def test_the_learning_rate_is_that_of_transformers_schedules(decay, made):
    options = Options(steps=50, learning_rate=2.0, rate_decay=decay, warmup_steps=5, timing="as_released")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    schedule = made(optimizer, 5, 50)
    for step in range(50):
        assert options.rate(step) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_the_cosine_may_end_above_zero():
    """MaskLLM's public code: from the peak at once, to a tenth of it."""
    options = Options(steps=1000, learning_rate=5e-4, warmup_steps=0, rate_end=0.1)
    rates = [options.rate(step) for step in range(1001)]
    assert rates[0] == pytest.approx(5e-4)
    assert rates[1000] == pytest.approx(5e-5)
    assert rates[500] == pytest.approx((5e-4 + 5e-5) / 2)
    assert rates == sorted(rates, reverse=True)


def trained(tiny_llama, tokens, **options):
    """A trainer at step 3 of 10 after that step, with the logits that it began with and their gradients, flat."""
    given = Options(**{"steps": 10, "batch_size": 8, "micro_batch_size": 2, "noise": "forward"} | options)
    ours = leap.trainer(Job(tiny_llama(), given, 1 - Fraction("0.4"), 1, tokens[:8]))
    theta = [layer.gate.logits["logits"] for layer in ours.layers]
    start, caught = [leaf.detach().double().requires_grad_(True) for leaf in theta], []
    update = ours.optimizer.step
    ours.optimizer.step = lambda *a: (caught.extend(leaf.grad.flatten() for leaf in theta), update(*a))
    return ours.step(3), start, torch.cat(caught).double(), [*ours._micro_batches(3)]


def loss_of(model, theta, tokens, micro):
    """One micro-batch by the formula, in float64: (L_LM, density term, norm term) with this micro-batch's noise."""
    weights = {f"{name}.weight": part.weight for name, part in model.named_modules() if name.endswith("_proj")}
    tau, kappa = 4 + (0.05 - 4) * 3 / 9, 25 + (350 - 25) * 3 / 9
    masked, kept, norms, dense = {}, 0.0, 0.0, 0.0
    for index, ((name, weight), logits) in enumerate(zip(weights.items(), theta, strict=True)):
        noise = Noise(CPU, 1, 3, index, micro).logistic(*logits.shape).double()
        gates = torch.sigmoid((kappa * logits + noise) / tau)
        masked[name] = weight * gates
        kept, norms, dense = kept + gates.sum(), norms + masked[name].norm(), dense + weight.norm()
    log_p = functional_call(model, masked, (tokens,)).logits[:, :-1].log_softmax(dim=-1)
    density = kept / sum(logits.numel() for logits in theta)
    return -log_p.gather(2, tokens[:, 1:, None]).mean(), 7 * (density - 0.4).abs(), -10 * (1 - 3 / 10) * norms / dense


@pytest.mark.parametrize("remade", [False, True], ids=["kept", "remade"])
def test_each_micro_batch_has_its_own_masks_and_regulariser(remade, tiny_llama, tokens):
    row, theta, gradient, micros = trained(tiny_llama, tokens, gradient_checkpointing=remade)
    model = tiny_llama().double()
    terms = [loss_of(model, theta, tokens[micro], index) for index, micro in enumerate(micros)]
    means = [sum(each) / len(micros) for each in zip(*terms, strict=True)]
    assert [row["loss_lm"], row["density_term"], row["norm_term"]] == pytest.approx([m.item() for m in means], rel=1e-4)
    expected = torch.cat([part.flatten() for part in torch.autograd.grad(sum(means), theta)])
    assert (gradient - expected).norm() < 1e-4 * expected.norm()


def test_one_gumbel_and_absolute_sums_as_the_secondary_source_writes_them(tiny_llama, tokens):
    row, theta, gradient, (micro,) = trained(tiny_llama, tokens, micro_batch_size=8, gumbels=1, norm="l1")
    model = tiny_llama().double()
    weights = {f"{name}.weight": part.weight for name, part in model.named_modules() if name.endswith("_proj")}
    tau, kappa = 4 + (0.05 - 4) * 3 / 9, 25 + (350 - 25) * 3 / 9
    draws = [Noise(CPU, 1, 3, index, 0).gumbel(*logits.shape).double() for index, logits in enumerate(theta)]
    gates = [torch.sigmoid((kappa * logits + draw) / tau) for logits, draw in zip(theta, draws, strict=True)]
    masked = {name: weight * gate for (name, weight), gate in zip(weights.items(), gates, strict=True)}
    log_p = functional_call(model, masked, (tokens[micro],)).logits[:, :-1].log_softmax(dim=-1)
    density = torch.cat([gate.flatten() for gate in gates]).mean()
    norm = -10 * 0.7 * sum(weight.abs().sum() for weight in masked.values())
    loss = -log_p.gather(2, tokens[micro][:, 1:, None]).mean() + 7 * (density - 0.4).abs() + norm
    assert row["norm_term"] == pytest.approx(norm.item(), rel=1e-5)
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)
    expected = torch.cat([part.flatten() for part in torch.autograd.grad(loss, theta)])
    assert (gradient - expected).norm() < 1e-4 * expected.norm()


def test_one_micro_batch_differs_from_noise_by_step_in_its_draw_alone(tiny_llama, tokens):
    rows = [trained(tiny_llama, tokens, noise=noise, micro_batch_size=8)[0] for noise in ("step", "forward")]
    assert rows[0]["loss_lm"] != rows[1]["loss_lm"]
    assert rows[0]["density_relaxed"] == pytest.approx(rows[1]["density_relaxed"], abs=0.05)


def test_gates_in_bfloat16_are_rounded_at_every_operation():
    theta, noise = torch.randn(1000) * 0.05, Noise(CPU, 0, 1, 2).logistic(1000)
    expected = torch.sigmoid((theta.bfloat16() * 60 + noise.bfloat16()).float() / 0.7)
    gates = relaxed_gates(theta, noise.clone(), Relaxation(60.0, 0.7, 60.0, dtype="bfloat16"))
    assert gates.dtype == torch.bfloat16
    torch.testing.assert_close(gates.float(), expected, rtol=0.05, atol=0.01)


def test_the_whole_bundle_trains(tiny_llama, tokens):
    bundle = {"timing": "as_released", "gates_dtype": "bfloat16", "logits_dtype": "bfloat16", "gradient_clip": 1.0}
    row, theta, gradient, _ = trained(tiny_llama, tokens, state_dtype="bfloat16", **bundle)
    assert gradient.norm() == pytest.approx(1.0, rel=0.02) or gradient.norm() < 1.0
    assert 0 < row["density_relaxed"] < 1
    assert all(leaf.isfinite().all() for leaf in theta)
