"""Our AdamW takes the steps of torch's, with moments of a precision of their own."""

from __future__ import annotations

import pytest
import torch

from leap_repro.prune.learned import adamw
from leap_repro.prune.learned.adamw import AdamW
from leap_repro.prune.learned.stochastic_rounding import CountedChance

BETAS, DECAY = (0.9, 0.95), 0.1


def start(dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in ((7, 5), (3,))]


def follow(steps, dtype, moments, epsilon=1e-8):
    """(ours, torch's in float64) after `steps` with the same gradients and rates."""
    ours, theirs = start(dtype), [tensor.requires_grad_() for tensor in start(torch.float64)]
    mine = AdamW(ours, BETAS, DECAY, moments, epsilon)
    reference = torch.optim.AdamW(theirs, lr=1.0, betas=BETAS, weight_decay=DECAY, eps=epsilon)
    generator = torch.Generator().manual_seed(1)
    for number in range(steps):
        rate = 1e-2 * (number + 1) / steps
        reference.param_groups[0]["lr"] = rate
        for our, their in zip(ours, theirs, strict=True):
            their.grad = torch.randn(our.shape, generator=generator, dtype=torch.float64)
            our.grad = their.grad.to(dtype)
        mine.step(number, rate)
        reference.step()
    return ours, [tensor.detach() for tensor in theirs]


@pytest.mark.parametrize("epsilon", [1e-8, 1e-1])
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_its_steps_are_torchs(steps, epsilon):
    for our, their in zip(*follow(steps, torch.float32, torch.float32, epsilon), strict=True):
        torch.testing.assert_close(our.double(), their, rtol=2e-6, atol=2e-7)


def test_moments_in_bfloat16_change_little_and_something():
    full, their = follow(30, torch.float32, torch.float32)
    half, _ = follow(30, torch.float32, torch.bfloat16)
    assert not torch.equal(half[0], full[0])
    torch.testing.assert_close(half[0].double(), their[0], rtol=0, atol=5e-3)


def test_gradients_are_gone_after_a_step():
    ours, _ = follow(1, torch.float32, torch.float32)
    assert all(tensor.grad is None for tensor in ours)


def gradients_of_closing_gates(shape, size, generator):
    """Over many orders of magnitude, and each entry's own size changing between steps: what LEAP's gates send."""
    sizes = 10 ** (-8 * torch.rand(shape, generator=generator, dtype=torch.float64))
    return size * sizes * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("size", [1.0, 1e-9])
def test_eight_bits_follow_float64_and_never_leap(size):
    """1e-9 is the gradient of one of eight billion logits: far below epsilon, and its square far below 1e-12."""
    generator = torch.Generator().manual_seed(2)
    ours, theirs = torch.zeros(40, 300), torch.zeros(40, 300, dtype=torch.float64)
    mine = AdamW([ours], BETAS, 0.0, torch.int8)
    reference = torch.optim.AdamW([theirs.requires_grad_()], lr=1e-3, betas=BETAS, weight_decay=0.0)
    drift = gradients_of_closing_gates(ours.shape, size, generator)
    largest = 0.0
    for number in range(60):
        theirs.grad = drift + gradients_of_closing_gates(ours.shape, size, generator)
        ours.grad, before = theirs.grad.float(), ours.clone()
        mine.step(number, 1e-3)
        reference.step()
        largest = max(largest, float((ours - before).abs().max()) / 1e-3)
    moved = theirs.detach()
    assert largest < 2
    assert float((ours.double() - moved).norm() / moved.norm()) < 0.1
    assert float((ours.double() * moved).sum() / moved.square().sum()) == pytest.approx(1, abs=0.02)


def test_steps_far_below_a_bfloat16_count_if_rounded_by_chance():
    nearest, by_chance, exact = torch.full((50, 400), 0.042).bfloat16(), torch.full((50, 400), 0.042).bfloat16(), 0.042
    start = float(nearest[0, 0])
    for parameter, chance in ((nearest, False), (by_chance, True)):
        ours = AdamW([parameter], BETAS, 0.0, torch.float32, chance=chance)
        for number in range(200):
            parameter.grad = torch.ones_like(parameter)
            ours.step(number, 1e-6)
    exact = start - 200 * 1e-6
    assert (nearest == start).all()
    assert float(by_chance.double().mean()) == pytest.approx(exact, abs=4e-6)


def test_rows_at_once_change_no_bit_of_what_is_not_left_to_chance(monkeypatch):
    results = []
    for at_once in (2**20, 10):
        monkeypatch.setitem(adamw.AT_ONCE, "cpu", at_once)
        results.append(follow(5, torch.float32, torch.float32)[0])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_rows_at_once_change_no_bit_of_what_is_left_to_counted_chance(monkeypatch):
    """A GPU takes more of them at a time than a CPU."""
    results = []
    for at_once in (2**20, 10):
        monkeypatch.setitem(adamw.AT_ONCE, "cpu", at_once)
        ours = AdamW(start(torch.bfloat16), BETAS, DECAY, torch.int8, chance=True, seed=5, chances=CountedChance)
        for number in range(5):
            generator = torch.Generator().manual_seed(number)
            for parameter in ours.parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            ours.step(number, 1e-2)
        results.append([*ours.parameters, *ours.state(["a", "b"]).values()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_state_restored_by_name_goes_on_to_the_same_bits():
    def steps(ours, numbers):
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            for parameter in ours.parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            ours.step(number, 1e-2)

    def fresh():
        return AdamW(start(torch.bfloat16), BETAS, DECAY, torch.int8, chance=True, seed=5)

    undisturbed, killed, resumed = fresh(), fresh(), fresh()
    steps(undisturbed, range(6))
    steps(killed, range(3))
    saved = {name: tensor.clone() for name, tensor in killed.state(["a", "b"]).items()}
    assert sorted(saved) == [f"{n}.{m}.{p}" for n in "ab" for m in ("first", "second") for p in ("codes", "scales")]
    for name, tensor in resumed.state(["a", "b"]).items():
        tensor.copy_(saved[name])
    for ours, theirs in zip(resumed.parameters, killed.parameters, strict=True):
        ours.copy_(theirs)
    torch.rand(3)  # somebody else's draw
    steps(resumed, range(3, 6))
    for ours, theirs in zip(resumed.parameters, undisturbed.parameters, strict=True):
        assert torch.equal(ours, theirs)
