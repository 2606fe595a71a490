"""OWL shares out the budget by outliers, to the weight; other rules take over any cell's budgets."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from leap_repro.models.prunable import prunable_linears
from leap_repro.prune.job import Job
from leap_repro.prune.methods import owl
from leap_repro.prune.run import load_method

SPARSITY = Fraction("0.6")


def prune(method, model, tokens, **given):
    rule, options = load_method(method, given.pop("options", {}))
    return rule.prune_cell(Job(model, options, SPARSITY, 0, tokens, **given))


def kept(cell):
    return {name.removesuffix(".keep"): int(t.sum()) for name, t in cell.tensors.items() if name.endswith(".keep")}


def outliers(model, tokens, times):
    """The share of outliers in each block of the dense model, in float64, from hooks of its own."""
    seen, linears = {}, prunable_linears(model)
    for linear in linears:
        linear.module.register_forward_hook(lambda _, x, __, n=linear.name: seen.__setitem__(n, x[0].double()))
    model(tokens)
    blocks = {}
    for linear in linears:
        norms = seen[linear.name].flatten(0, 1).norm(dim=0)
        blocks.setdefault(linear.block, []).append((linear.weight.detach().double().abs() * norms).flatten())
    blocks = {block: torch.cat(scores) for block, scores in blocks.items()}
    return [float((scores > times * scores.mean()).double().mean()) for scores in blocks.values()]


def test_blocks_keep_by_their_share_of_outliers_and_the_model_keeps_its_budget(tiny_llama, tokens):
    model = tiny_llama(blocks=4)
    numels = {linear.name: linear.weight.numel() for linear in prunable_linears(model)}
    blocks = {linear.name: linear.block for linear in prunable_linears(model)}
    shares = np.array(outliers(tiny_llama(blocks=4), tokens, 3))
    assert len(set(shares)) == 4
    cell = prune("owl", model, tokens, options={"outlier": 3, "spread": 0.1})
    total = sum(numels.values())
    assert sum(kept(cell).values()) == total - round(SPARSITY * total)
    assert cell.facts["budget_scope"] == "global"
    wanted = 0.4 + 0.2 * (shares - shares.mean()) / (shares.max() - shares.min())  # blocks are of one size
    for name, count in kept(cell).items():
        assert abs(count - wanted[blocks[name]] * numels[name]) <= 1
    for mask in cell.tensors.values():
        rows = mask.sum(dim=1)
        assert int(rows.max() - rows.min()) <= 1, "Wanda's rule: rows keep the same number, or one more"


def test_densities_are_as_far_apart_as_asked_for_and_average_to_the_budget():
    shares, sizes = [Fraction(1, 100), Fraction(3, 100), Fraction(2, 100)], [100, 100, 300]
    found = owl.densities(shares, sizes, Fraction("0.4"), Fraction("0.08"))
    assert max(found) - min(found) == Fraction("0.16")
    assert sum(d * n for d, n in zip(found, sizes, strict=True)) == Fraction("0.4") * sum(sizes)
    assert owl.densities([Fraction(1, 9)] * 2, [5, 5], Fraction("0.4"), Fraction("0.08")) == [Fraction("0.4")] * 2


def test_a_spread_that_leaves_a_block_without_weights_is_refused(refused):
    with refused("spread is 0.5"):
        owl.densities([Fraction(0), Fraction(1)], [10, 10], Fraction("0.4"), Fraction("0.5"))


def test_budgets_are_whole_numbers_whose_sum_is_exact():
    wanted = {name: (Fraction("0.37"), numel) for name, numel in (("a", 7), ("b", 11), ("c", 13))}
    found = owl.budgets(wanted, Fraction("0.63"))
    drops = {name: found[name] * numel for name, (_, numel) in wanted.items()}
    assert all(drop.denominator == 1 for drop in drops.values())
    assert sum(drops.values()) == round(Fraction("0.63") * 31)
    assert all(abs(drop - Fraction("0.63") * wanted[name][1]) < 1 for name, drop in drops.items())


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "thanos", "admm"])
def test_a_rule_given_another_cells_budgets_keeps_exactly_those(method, tiny_llama, tokens):
    model = tiny_llama()
    linears = prunable_linears(model)
    counts = {linear.name: (3 + 7 * index) % linear.weight.numel() for index, linear in enumerate(linears)}
    budgets = {linear.name: 1 - Fraction(counts[linear.name], linear.weight.numel()) for linear in linears}
    cell = prune(method, model, tokens, budgets=budgets)
    assert kept(cell) == counts
    assert cell.facts["budget_scope"] == "global"


def test_budgets_of_another_model_or_for_a_pattern_are_refused(tiny_llama, tokens, refused):
    with refused("another model"):
        prune("wanda", tiny_llama(), tokens, budgets={"x": SPARSITY})
    budgets = {linear.name: SPARSITY for linear in prunable_linears(tiny_llama())}
    with refused("unstructured"):
        prune("wanda", tiny_llama(), tokens, budgets=budgets, options={"rounding": "as_released"})
