"""A pattern's name means one thing: N of M dropped; anything else is refused in one sentence."""

from fractions import Fraction

import pytest

from leap_repro.sparsity.patterns import Pattern, parse_pattern


def test_names_are_read():
    assert parse_pattern("unstructured") is None
    assert parse_pattern("2:4") == Pattern(2, 4)
    assert parse_pattern("4:8") == Pattern(4, 8)
    assert parse_pattern("2:4+dense-rows") == Pattern(2, 4, dense_rows=True)


@pytest.mark.parametrize(("name", "share"), [("2:4", "1/2"), ("4:8", "1/2"), ("1:4", "1/4")])
def test_a_pattern_drops_its_first_number_of_its_second(name, share):
    assert parse_pattern(name).sparsity == Fraction(share)
    assert str(parse_pattern(name)) == name


@pytest.mark.parametrize("name", ["", "2", "4:2", "4:4", "0:4", "2:4:8", "-2:4", "two:four", "2:4 ", "2:4+rows", 124])
def test_any_other_name_is_refused(name, refused):
    with refused("pattern", str(name), "unstructured"):
        parse_pattern(name)
