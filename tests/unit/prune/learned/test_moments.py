"""Moments in 8 bits: near what was written, whatever lies beside it, and never 0 where something was."""

from __future__ import annotations

import torch

from leap_repro.prune.learned.moments import BLOCK, moments
from leap_repro.prune.learned.stochastic_rounding import Chance

ALL = slice(None)


def chance():
    return Chance(torch.device("cpu"), "a test")


def spread_out(*shape):
    """Numbers of both signs over twelve orders of magnitude."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator) * 10 ** (-12 * torch.rand(shape, generator=generator))


def written(values, signed):
    moment = moments(values, signed, torch.int8)
    moment.write(ALL, values, chance())
    return moment


def test_a_second_moment_is_within_a_level_and_above_0_however_large_its_neighbours():
    values = spread_out(7, 600).square()
    found = written(values, signed=False).read(ALL)
    largest = torch.stack([part.amax(-1) for part in values.split(BLOCK, -1)], -1).repeat_interleave(BLOCK, -1)[:, :600]
    inside = values > 2.0**-48 * largest
    assert inside.float().mean() > 0.5
    assert (found[inside] / values[inside] - 1).abs().max() < 0.15
    assert (found >= values * 0.85).all()
    assert (found > 0).all()


def test_a_first_moment_keeps_its_sign_and_size():
    values = spread_out(7, 600)
    found = written(values, signed=True).read(ALL)
    assert (found * values >= 0).all()
    large = values.abs() > 2.0**-24 * values.abs().amax()
    assert (found[large] / values[large] - 1).abs().max() < 0.15
    assert torch.equal(found.abs().amax(-1), values.abs().amax(-1))  # each block's largest exactly


def test_it_takes_a_byte_an_entry_and_a_float_a_block_with_rows_that_can_be_parted():
    parts = moments(torch.zeros(6, 5, 600, dtype=torch.bfloat16), False, torch.int8).tensors
    assert parts[".codes"].shape == (6, 5, 600)
    assert parts[".scales"].shape == (6, 5, 3)
    assert (parts[".codes"].dtype, parts[".scales"].dtype) == (torch.uint8, torch.float32)


def test_rows_are_read_and_written_alone():
    values = spread_out(6, 300)
    moment = written(values, signed=True)
    before = moment.read(ALL)
    moment.write(slice(2, 4), torch.zeros(2, 300), chance())
    after = moment.read(ALL)
    assert (after[2:4] == 0).all()
    assert torch.equal(after[[0, 1, 4, 5]], before[[0, 1, 4, 5]])


def test_moments_begin_at_0():
    for signed in (True, False):
        assert (moments(torch.ones(3, 300), signed, torch.int8).read(ALL) == 0).all()


def test_what_fades_by_less_than_half_a_level_fades():
    """Rounded to the nearest it would never move: 3 % is less than half of the 14 % between levels."""
    values = torch.full((40, BLOCK), 1e-3)
    values[:, 0] = 1.0  # what sets the scale
    moment, draws = written(values, signed=False), chance()
    for _ in range(100):
        faded = moment.read(ALL).mul_(0.97)
        faded[:, 0] = 1.0
        moment.write(ALL, faded, draws)
    assert abs(float(moment.read(ALL)[:, 1:].double().mean()) / (1e-3 * 0.97**100) - 1) < 0.1
