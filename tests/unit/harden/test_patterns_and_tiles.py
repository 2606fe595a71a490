"""Pattern and tile logits at hardening's door: the likeliest pattern, the nearest number of tiles, and refusals."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
import torch

from leap_repro.errors import UserError
from leap_repro.harden.tensors import harden, likeliest
from leap_repro.sparsity.masks import check_budget, check_pattern
from leap_repro.sparsity.pruned import KINDS
from leap_repro.sparsity.tiles import tile_sums

SHAPES = {"model.layers.0.a.weight": (6, 12), "model.layers.1.a.weight": (5, 8)}
SIZE = 4
NAME = f"2:4+dense-tiles-{SIZE}"


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kinds(**given):
    return {kind: {} for kind in KINDS} | given


def patterns(seed=0):
    return {name: random(rows, columns // 4, 6, seed=seed) for name, (rows, columns) in SHAPES.items()}


def tiles(seed=1):
    return {name: random(-(-r // SIZE), -(-c // SIZE), seed=seed + c) for name, (r, c) in SHAPES.items()}


def counts(masks):
    return {name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()}


def test_the_likeliest_pattern_of_each_group_is_the_mask():
    (theta,) = (patterns()["model.layers.0.a.weight"],)
    mask = likeliest(theta)
    kept = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for row, group in product(range(6), range(3)):
        best = max(range(6), key=lambda pattern: float(theta[row, group, pattern]))
        found = mask[row, 4 * group : 4 * group + 4].nonzero().flatten().tolist()
        assert tuple(found) == kept[best]


@pytest.mark.parametrize("rule", ["exact", "threshold"])
def test_patterns_keep_two_of_four_everywhere_by_either_rule(rule):
    hardened = harden(kinds(patterns=patterns()), "2:4", "tensor", Fraction(1, 2), rule)
    assert (hardened.rule, hardened.scope) == ("likeliest pattern", "tensor")
    check_pattern("a cell", hardened.masks, "2:4")
    check_budget("a cell", counts(hardened.masks), Fraction(1, 2), hardened.scope)


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("sparsity", ["0", "0.1", "0.25", "0.33", "0.45", "0.5"])
def test_the_best_tiles_are_dense_and_no_other_number_of_them_is_nearer(sparsity, learned):
    two_four = {name: likeliest(theta) for name, theta in patterns().items()}
    under = {"patterns": patterns()} if learned else {"keep": two_four}
    hardened = harden(kinds(tiles=tiles(), **under), NAME, "tiles", Fraction(sparsity), "exact")
    check_pattern("a cell", hardened.masks, NAME)
    order = sorted(
        (
            (float(theta[i, j]), name, i, j)
            for name, theta in tiles().items()
            for i, j in product(*map(range, theta.shape))
        ),
        reverse=True,
    )
    numel = sum(mask.numel() for mask in two_four.values())
    by_count = []
    for count in range(len(order) + 1):
        masks = {name: mask.clone() for name, mask in two_four.items()}
        for _, name, i, j in order[:count]:
            masks[name][i * SIZE : (i + 1) * SIZE, j * SIZE : (j + 1) * SIZE] = True
        by_count.append(masks)
    target = numel - round(Fraction(sparsity) * numel)
    distance = [abs(sum(int(m.sum()) for m in masks.values()) - target) for masks in by_count]
    best = by_count[distance.index(min(distance))]
    assert all(torch.equal(hardened.masks[name], best[name]) for name in SHAPES)
    check_budget("a cell", counts(hardened.masks), Fraction(sparsity), hardened.scope, hardened.neighbours)


def test_the_threshold_keeps_the_tiles_above_zero_dense_and_promises_no_count():
    two_four = {name: likeliest(theta) for name, theta in patterns().items()}
    hardened = harden(kinds(tiles=tiles(), keep=two_four), NAME, "tiles", Fraction("0.45"), "threshold")
    assert hardened.scope == "none"
    for name, theta in tiles().items():
        for i, j in product(*map(range, theta.shape)):
            place = (slice(i * SIZE, (i + 1) * SIZE), slice(j * SIZE, (j + 1) * SIZE))
            expected = two_four[name][place] | bool(theta[i, j] > 0)
            assert torch.equal(hardened.masks[name][place], expected)


def test_a_cell_whose_neighbour_is_nearer_is_refused():
    with pytest.raises(UserError, match=r"a cell: .* keep 60 of 100 .* keep 54, which is nearer to its budget of 55"):
        check_budget("a cell", {"a": (60, 100)}, Fraction("0.45"), "tiles", [54, 66])


def test_a_mask_of_tiles_that_breaks_two_of_four_is_refused_by_tensor():
    masks = {"a.weight": torch.ones(8, 8, dtype=torch.bool)}
    check_pattern("a cell", masks, NAME)
    masks["a.weight"][5, 6] = False
    with pytest.raises(UserError, match=r"a cell: a\.weight is not 2:4"):
        check_pattern("a cell", masks, NAME)


def test_a_budget_per_matrix_is_met_in_every_matrix():
    logits = {name: random(*shape) + i for i, (name, shape) in enumerate(SHAPES.items())}
    hardened = harden(kinds(logits=logits), "unstructured", "tensor", Fraction("0.6"), "exact")
    check_budget("a cell", counts(hardened.masks), Fraction("0.6"), "tensor")
    for name, theta in logits.items():
        assert theta[hardened.masks[name]].min() > theta[~hardened.masks[name]].max()


@pytest.mark.parametrize("kind", ["logits", "patterns", "tiles"])
def test_logits_that_are_not_finite_are_refused_by_tensor(kind):
    with pytest.raises(UserError, match=r"a\.weight are not finite"):
        harden(kinds(**{kind: {"a.weight": torch.full((4, 1, 6), torch.nan)}}), NAME, "tiles", Fraction(1, 2), "exact")


def test_of_equal_tiles_the_earlier_are_dense_over_all_matrices():
    names = ["model.layers.0.a.weight", "model.layers.1.a.weight"]
    two_four = torch.tensor([True, True, False, False]).repeat(32, 8)
    given = {"keep": dict.fromkeys(names, two_four), "tiles": {name: torch.zeros(8, 8) for name in names}}
    masks = harden(kinds(**given), NAME, "tiles", Fraction(1, 5), "exact").masks
    dense = torch.cat([tile_sums(masks[name], SIZE).flatten() for name in names]) == SIZE**2
    count = int(dense.sum())
    assert count == round(0.6 * 128)
    assert dense.tolist() == [place < count for place in range(128)]
