"""What is rounded by chance is one of its two neighbours, and itself on average."""

from __future__ import annotations

import pytest
import torch

from leap_repro.prune.learned.moments import levels
from leap_repro.prune.learned.stochastic_rounding import CHANCES, Chance, by_chance, to_codes

DRAWS = 40_000
CPU = torch.device("cpu")


def chance(seed=0, source="generator"):
    return CHANCES[source](CPU, "a test", seed)


def mean_within_five_deviations(found, value, low, high):
    deviation = ((high - value) * (value - low) / DRAWS) ** 0.5
    assert abs(float(found.double().mean()) - value) <= 5 * deviation + 1e-12 * abs(value)


@pytest.mark.parametrize("source", CHANCES)
@pytest.mark.parametrize("value", [1.001, -1.001, 0.042, -3e-9, 1.0, -0.25, 0.0, 255.9, 1.99999])
def test_a_bfloat16_is_a_neighbour_of_the_number_and_its_mean_the_number(value, source):
    value = float(torch.tensor(value))
    found = by_chance(torch.full((DRAWS,), value), torch.bfloat16, chance(source=source))
    unit = 2.0 ** (torch.frexp(torch.tensor(value, dtype=torch.float64)).exponent.item() - 8)
    low, high = (value // unit) * unit, -((-value) // unit) * unit
    assert found.dtype == torch.bfloat16
    assert set(found.double().tolist()) <= {low, high}
    mean_within_five_deviations(found, value, low, high)


def test_infinities_and_what_is_no_number_stay_so():
    found = by_chance(torch.tensor([float("inf"), float("-inf"), float("nan")]), torch.bfloat16, chance())
    assert found[0] == float("inf")
    assert found[1] == float("-inf")
    assert found[2].isnan()


def test_a_float32_is_left_as_it_is_without_a_draw():
    draws, value = chance(), torch.randn(5)
    before = draws.generator.get_state()
    assert by_chance(value, torch.float32, draws) is value
    assert torch.equal(draws.generator.get_state(), before)


@pytest.mark.parametrize("source", CHANCES)
def test_chance_is_the_seeds(source):
    value = torch.randn(1000)
    found = [by_chance(value, torch.bfloat16, chance(seed, source)) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_counted_chance_does_not_depend_on_how_many_are_drawn_at_a_time():
    """Nor do streams on each other: a device takes as large parts as fit it."""
    value, found = torch.randn(1003), []
    for sizes in ([1003], [500, 1, 502]):
        draws = chance(source="counter")
        parts = []
        for part in value.split(sizes):
            draws.uniform(len(part), stream=1)
            parts.append(by_chance(part, torch.bfloat16, draws, stream=2))
        found.append(torch.cat(parts))
    assert torch.equal(*found)
    first, second = (chance(source="counter").uniform(10_000, stream) for stream in (0, 1))
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.05


def test_counted_halves_are_the_upper_bits_of_the_uniform_numbers():
    halves = chance(source="counter").halves(torch.Size([100, 7]), stream=3)
    uniform = chance(source="counter").uniform(700, stream=3).double()
    assert halves.dtype == torch.int32
    assert torch.equal(halves.flatten(), (uniform * 65536).floor().int())


@pytest.mark.parametrize("source", CHANCES)
@pytest.mark.parametrize("signed", [True, False])
def test_a_code_stands_for_a_level_next_to_the_number_and_for_the_number_on_average(signed, source):
    table = levels(signed)
    assert torch.equal(table.sort().values, table)
    assert len(table.unique()) == len(table) <= 256
    for value in (0.97, 0.3, 1e-4, *((-0.3, -2e-6, 3e-9, 0.0) if signed else (3e-13,))):
        value = float(torch.tensor(value))
        found = table[to_codes(torch.full((DRAWS,), value), table, chance(source=source)).int()].double()
        high = float(table[table >= value].min())
        low = float(table[table <= value].max())
        assert set(found.tolist()) <= {low, high}
        mean_within_five_deviations(found, value, low, high)


def test_a_number_beyond_the_levels_has_the_nearest_of_them():
    table = levels(False)
    found = table[to_codes(torch.tensor([0.0, 1e-30, 1.0, 2.0]), table, chance()).int()]
    assert torch.equal(found, table[[0, 0, -1, -1]])


@pytest.mark.parametrize("bits", [0x7FFFFFFF, -1, 0x7FC00000, 0x7F800001, 0x7F800000, -0x800000])
def test_what_is_no_finite_number_does_not_become_one(bits):
    """0x7FFFFFFF is the NaN of a GPU's arithmetic: a draw would carry it over to -0."""
    value = torch.full((1000,), bits, dtype=torch.int32).view(torch.float32)
    found = by_chance(value.clone(), torch.bfloat16, Chance(CPU, "a test")).float()
    assert torch.equal(found.isnan(), value.isnan())
    assert torch.equal(found.isinf(), value.isinf())
