"""Our AdamW takes the steps of torch's, with moments of a precision of their own."""

from __future__ import annotations

import pytest
import torch

from leap_repro.prune.learned.adamw import AdamW

BETAS, DECAY = (0.9, 0.95), 0.1


def start(dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in ((7, 5), (3,))]


def follow(steps, dtype, moments):
    """(ours, torch's in float64) after `steps` with the same gradients and rates."""
    ours, theirs = start(dtype), [tensor.requires_grad_() for tensor in start(torch.float64)]
    mine = AdamW(ours, BETAS, DECAY, moments)
    reference = torch.optim.AdamW(theirs, lr=1.0, betas=BETAS, weight_decay=DECAY)
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


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_its_steps_are_torchs(steps):
    for our, their in zip(*follow(steps, torch.float32, torch.float32), strict=True):
        torch.testing.assert_close(our.double(), their, rtol=2e-6, atol=2e-7)


def test_moments_in_bfloat16_change_little_and_something():
    full, their = follow(30, torch.float32, torch.float32)
    half, _ = follow(30, torch.float32, torch.bfloat16)
    assert not torch.equal(half[0], full[0])
    torch.testing.assert_close(half[0].double(), their[0], rtol=0, atol=5e-3)


def test_gradients_are_gone_after_a_step():
    ours, _ = follow(1, torch.float32, torch.float32)
    assert all(tensor.grad is None for tensor in ours)
