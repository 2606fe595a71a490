"""Budgets are integers: every stage that counts must count the same to the weight."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap_repro.sparsity.budget import dropped, kept, parse_sparsity

decimals = st.integers(0, 9999).map(lambda n: f"0.{n:04d}")


@pytest.mark.parametrize(
    ("text", "fraction"),
    [("0", Fraction(0)), (0.6, Fraction(3, 5)), ("0.6", Fraction(3, 5)), ("0.999", Fraction(999, 1000))],
)
def test_a_sparsity_is_the_exact_fraction_of_its_decimal(text, fraction):
    assert parse_sparsity(text) == fraction


@pytest.mark.parametrize("text", ["1", "1.0", "-0.1", "2", "half", "", "nan", "inf", "1/0", None])
def test_a_sparsity_outside_0_1_is_refused_with_its_value(text, refused):
    with refused(repr(text), "[0, 1)"):
        parse_sparsity(text)


@pytest.mark.parametrize(
    ("sparsity", "count", "expected"),
    [
        ("0.5", 5, 2),
        ("0.5", 7, 4),
        ("0.6", 5, 3),
        ("0.6", 7, 4),
        ("0", 7, 0),
        ("0.1", 30, 3),
        ("0.6", 0, 0),
        ("0.17", 650, 110),
        ("0.018", 750, 14),
    ],
)
def test_dropped_rounds_and_takes_halves_to_even(sparsity, count, expected):
    assert dropped(parse_sparsity(sparsity), count) == expected


@given(decimals, st.integers(0, 10**9))
def test_kept_and_dropped_share_out_every_weight_and_lie_within_half_a_weight_of_the_target(text, count):
    sparsity = parse_sparsity(text)
    assert kept(sparsity, count) + dropped(sparsity, count) == count
    assert abs(dropped(sparsity, count) - sparsity * count) <= Fraction(1, 2)


@given(decimals, st.integers(0, 10**6).map(lambda n: n * 10000))
def test_a_budget_that_is_whole_is_met_exactly(text, count):
    assert dropped(parse_sparsity(text), count) == int(text.removeprefix("0.")) * count // 10000
