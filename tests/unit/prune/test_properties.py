"""What must hold for every selector, pattern and shape: budgets, valid groups, symmetries, independence of batches.

Scaling by a power of two is exact in floating point, so where a method is equivariant, masks and values are equal to
the bit. Where it is not, this file says so:

* dead inputs get H_jj = 1 whatever the scale of the others (SparseGPT, Thanos), so live inputs are drawn here;
* ADMM divides by a column norm + 1e-8, so it is only nearly equivariant in the inputs;
* scaling single inputs against their columns changes magnitude's scores, and what damping means to SparseGPT and
  Thanos (a share of the mean diagonal of H); Wanda and ADMM do not see it.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leap_repro.errors import UserError
from leap_repro.prune.job import Job
from leap_repro.prune.layerwise import driver
from leap_repro.prune.methods import admm, alps, dsnot, magnitude, ria, sparsegpt, thanos, wanda
from leap_repro.sparsity.masks import check_budget, check_pattern

SELECTORS = {
    "magnitude": magnitude,
    "wanda": wanda,
    "ria": ria,
    "dsnot": dsnot,
    "sparsegpt": sparsegpt,
    "thanos": thanos,
    "admm": admm,
    "alps": alps,
}
FAST = settings(max_examples=25, deadline=None)
SPARSITIES = st.integers(0, 999).map(lambda thousandths: Fraction(thousandths, 1000))


def prune(name, layer, **options):
    module = SELECTORS[name]
    return module.prune_layer(layer, module.Options(**options))


def values_of(layer, pruned):
    return (layer.weight if pruned.values is None else pruned.values) * pruned.keep


def blocks(name, size):
    """SparseGPT and Thanos prune blocks of columns, here small ones, so that tiny layers have several. DSnoT's
    threshold is absolute, and would not scale."""
    if name == "dsnot":
        return {"threshold": 0.0}
    return {"block_size": size} if name in ("sparsegpt", "thanos") else {}


@pytest.mark.parametrize("name", SELECTORS)
@given(rows=st.integers(1, 6), columns=st.integers(1, 11), sparsity=SPARSITIES, seed=st.integers(0, 99), data=st.data())
@FAST
def test_the_budget_is_exact_for_every_shape(name, rows, columns, sparsity, seed, data, random_layer, drop_count):
    dead = data.draw(st.sets(st.integers(0, columns - 1), max_size=2))
    layer, *_ = random_layer(rows, columns, sparsity, seed, dead=sorted(dead))
    pruned = prune(name, layer, **blocks(name, data.draw(st.integers(1, 12))))
    kept = rows * columns - drop_count(sparsity, rows * columns)
    assert int(pruned.keep.sum()) == kept
    assert torch.isfinite(values_of(layer, pruned)).all()


@pytest.mark.parametrize("name", SELECTORS)
@given(rows=st.integers(1, 5), eights=st.integers(1, 3), seed=st.integers(0, 99), data=st.data())
@FAST
def test_every_group_follows_its_pattern(name, rows, eights, seed, data, random_layer):
    pattern = data.draw(st.sampled_from(["2:4", "4:8"]))
    dead = data.draw(st.sets(st.integers(0, 8 * eights - 1), max_size=5))
    layer, *_ = random_layer(rows, 8 * eights, "1/2", seed, dead=sorted(dead))
    pruned = prune(name, layer, pattern=pattern, **blocks(name, data.draw(st.sampled_from([8, 16, 128]))))
    check_pattern("cell", {"w": pruned.keep}, pattern)
    counts = {"w": (int(pruned.keep.sum()), pruned.keep.numel())}
    check_budget("cell", counts, Fraction(1, 2), SELECTORS[name].Options(pattern=pattern).facts["budget_scope"])
    assert not values_of(layer, pruned)[~pruned.keep].any()


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("name", SELECTORS)
@given(power=st.integers(-12, 12), seed=st.integers(0, 99))
@FAST
def test_scaling_the_weights_scales_the_result(name, pattern, power, seed, random_layer, make_layer):
    layer, weight, inputs = random_layer(5, 8, "0.5", seed)
    scaled = make_layer(weight * 2.0**power, inputs, "0.5")
    options = {"pattern": pattern} | blocks(name, 4)
    one, other = prune(name, layer, **options), prune(name, scaled, **options)
    assert torch.equal(one.keep, other.keep)
    assert torch.equal(values_of(layer, one) * 2.0**power, values_of(scaled, other))


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("name", ["wanda", "ria", "dsnot", "sparsegpt", "thanos", "admm", "alps"])
@given(power=st.integers(-6, 6), seed=st.integers(0, 99))
@FAST
def test_scaling_all_inputs_changes_nothing(name, pattern, power, seed, random_layer, make_layer):
    layer, weight, inputs = random_layer(5, 8, "0.5", seed)
    scaled = make_layer(weight, inputs * 2.0**power, "0.5")
    options = {"pattern": pattern} | blocks(name, 4)
    one, other = prune(name, layer, **options), prune(name, scaled, **options)
    assert torch.equal(one.keep, other.keep)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if name == "admm" else {"rtol": 0.0, "atol": 0.0}
    torch.testing.assert_close(values_of(layer, one), values_of(scaled, other), **tolerance)


@pytest.mark.parametrize("name", ["wanda", "admm"])
@given(powers=st.lists(st.integers(-4, 4), min_size=8, max_size=8), seed=st.integers(0, 99))
@FAST
def test_scaling_inputs_against_their_columns_is_not_seen(name, powers, seed, random_layer, make_layer):
    layer, weight, inputs = random_layer(5, 8, "0.5", seed)
    sizes = 2.0 ** np.array(powers)
    scaled = make_layer(weight / sizes, inputs * sizes, "0.5")
    one, other = prune(name, layer), prune(name, scaled)
    assert torch.equal(one.keep, other.keep)
    back = values_of(scaled, other) * torch.from_numpy(sizes).float()
    torch.testing.assert_close(values_of(layer, one), back, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("name", SELECTORS)
@given(order=st.permutations(range(6)), seed=st.integers(0, 99))
@FAST
def test_permuting_output_rows_permutes_the_result(name, pattern, order, seed, random_layer, make_layer):
    layer, weight, inputs = random_layer(6, 8, "0.5", seed)
    permuted = make_layer(weight[order], inputs, "0.5")
    options = {"pattern": pattern} | blocks(name, 4)
    one, other = prune(name, layer, **options), prune(name, permuted, **options)
    assert torch.equal(one.keep[order], other.keep)
    torch.testing.assert_close(values_of(layer, one)[order], values_of(permuted, other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 20])
@pytest.mark.parametrize("name", ["wanda", "ria", "dsnot", "sparsegpt", "thanos", "admm", "alps"])
def test_the_batches_of_the_calibration_set_do_not_matter(name, batch, tiny_llama, tokens, monkeypatch):
    module = SELECTORS[name]

    def cell():
        return module.METHOD.prune_cell(Job(tiny_llama(), module.Options(), Fraction("0.5"), seed=0, tokens=tokens))

    usual = cell()
    monkeypatch.setattr(driver, "CALIBRATION_BATCH", batch)
    for key, tensor in cell().tensors.items():
        if key.endswith(".keep"):
            assert torch.equal(tensor, usual.tensors[key])
        else:
            torch.testing.assert_close(tensor, usual.tensors[key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SELECTORS)
def test_inputs_that_a_pattern_does_not_divide_are_refused_by_name(name, tiny_llama, tokens):
    module = SELECTORS[name]
    model = tiny_llama()
    mlp = model.model.layers[1].mlp
    for linear in (mlp.gate_proj, mlp.up_proj):
        linear.weight = torch.nn.Parameter(linear.weight[:22].clone(), requires_grad=False)
    mlp.down_proj.weight = torch.nn.Parameter(mlp.down_proj.weight[:, :22].clone(), requires_grad=False)
    job = Job(model, module.Options(pattern="2:4"), Fraction("0.5"), seed=0, tokens=tokens)
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.down_proj\.weight has 22 inputs.*2:4"):
        module.METHOD.prune_cell(job)


@pytest.mark.parametrize("name", SELECTORS)
def test_a_sparsity_that_a_pattern_cannot_have_is_refused(name, tiny_llama, tokens):
    module = SELECTORS[name]
    job = Job(tiny_llama(), module.Options(pattern="4:8"), Fraction("0.6"), seed=0, tokens=tokens)
    with pytest.raises(UserError, match=r"0\.6; options\.pattern is '4:8', which allows only \[0\.5\]"):
        module.METHOD.prune_cell(job)
