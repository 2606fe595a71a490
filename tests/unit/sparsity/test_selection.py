"""The streaming selection against a stable sort: every mask is that of sorting all logits, the earlier first."""

from __future__ import annotations

from fractions import Fraction
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leap_repro.harden.tensors import harden_logits
from leap_repro.sparsity import selection
from leap_repro.sparsity.selection import cut_at, require_logits

AWKWARD = [0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, -1.1754942e-38, 1.0, -1.0, 1.0000001, 3.4028235e38, -3.4028235e38]


def by_sorting(logits, count):
    """The masks of the `count` first in a stable descending sort of everything: Python's, on float64."""
    places = [(name, place) for name, theta in logits.items() for place in range(theta.numel())]
    values = [value for theta in logits.values() for value in theta.flatten().double().tolist()]
    order = sorted(range(len(values)), key=lambda i: -values[i])[:count]
    masks = {name: torch.zeros(theta.numel(), dtype=torch.bool) for name, theta in logits.items()}
    for name, place in map(places.__getitem__, order):
        masks[name][place] = True
    return {name: mask.view_as(logits[name]) for name, mask in masks.items()}


def selected(logits, count):
    cut = cut_at(logits, count)
    return {name: cut.mask(name, theta) for name, theta in logits.items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], mask) for name, mask in expected.items())


@given(st.lists(st.lists(st.sampled_from(AWKWARD), min_size=0, max_size=12), min_size=1, max_size=4), st.data())
def test_ties_zeros_of_both_signs_and_denormals_are_cut_as_a_sort_cuts_them(rows, data):
    logits = {f"{i}.weight": torch.tensor(row, dtype=torch.float32) for i, row in enumerate(rows)}
    count = data.draw(st.integers(0, sum(map(len, rows))))
    with mock.patch.object(selection, "CHUNK", 5):
        assert_same(selected(logits, count), by_sorting(logits, count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [0, 1, 2, 700, 2999, 3000])
def test_random_logits_of_every_type_are_cut_as_a_sort_cuts_them(dtype, count):
    generator = torch.Generator().manual_seed(count)
    shapes = {"a.weight": (30, 40), "b.weight": (60, 25), "c.weight": (300,)}
    logits = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    assert_same(selected(logits, count), by_sorting(logits, count))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=30))
def test_any_finite_bits_are_ordered_as_their_floats(bits):
    theta = torch.tensor(bits, dtype=torch.int64).to(torch.int32).view(torch.float32)
    theta = theta[torch.isfinite(theta)]
    for count in range(len(theta) + 1):
        assert_same(selected({"a": theta}, count), by_sorting({"a": theta}, count))


@pytest.mark.parametrize("count", [0, 1, 17, 24])
def test_of_equal_logits_the_earlier_are_kept_over_all_tensors(count):
    logits = {"a.weight": torch.full((3, 4), -2.5), "b.weight": torch.full((4, 3), -2.5)}
    masks = selected(logits, count)
    assert torch.cat([mask.flatten() for mask in masks.values()]).tolist() == [place < count for place in range(24)]


def test_a_matrix_that_is_a_view_of_another_layout_is_read_row_by_row():
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).round().T
    assert_same(selected({"a": theta}, 9), by_sorting({"a": theta.contiguous()}, 9))


def test_a_budget_per_matrix_breaks_ties_within_each():
    logits = {"a.weight": torch.zeros(2, 5), "b.weight": torch.ones(1, 5)}
    masks = harden_logits(logits, Fraction("0.6"), "exact", per_tensor=True)
    for name, theta in logits.items():
        assert torch.equal(masks[name], by_sorting({name: theta}, round(0.4 * theta.numel()))[name])


def test_logits_that_float32_does_not_hold_exactly_are_refused(refused):
    with refused("a.weight", "torch.float64", "torch.float32"):
        require_logits("a.weight", torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("place", [0, 6, 12])
def test_one_logit_that_is_no_number_is_refused_wherever_it_stands(place, refused):
    theta = torch.zeros(13)
    theta[place] = torch.inf
    with mock.patch.object(selection, "CHUNK", 5), refused("a.weight", "not finite"):
        require_logits("a.weight", theta)


@pytest.mark.parametrize("count", range(5))
def test_zeros_of_both_signs_are_equal_and_the_earlier_are_kept(count):
    logits = {"a.weight": torch.tensor([-0.0, 0.0, -0.0, 0.0])}
    assert selected(logits, count)["a.weight"].tolist() == [place < count for place in range(4)]
