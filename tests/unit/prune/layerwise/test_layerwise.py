"""The block-by-block driver equals a naive protocol that reruns the whole model from its start for every block."""

from __future__ import annotations

import copy
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from leap_repro.errors import UserError
from leap_repro.prune.job import Job
from leap_repro.prune.layerwise.driver import prune_layers
from leap_repro.prune.methods import admm, magnitude, sparsegpt, thanos, wanda
from leap_repro.store.tokens import batch_indices

DATA_METHODS = [wanda, sparsegpt, thanos, admm]
LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
LINEARS += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def linears_of(model, block):
    return {f"model.layers.{block}.{name}.weight": model.model.layers[block].get_submodule(name) for name in LINEARS}


@torch.no_grad()
def inputs_of(model, block, tokens):
    """The inputs [tokens, in] of each matrix of a block, from one run of the whole model as it now is."""
    seen, handles = {}, []
    for name, linear in linears_of(model, block).items():
        handles.append(
            linear.register_forward_hook(lambda _, args, __, name=name: seen.update({name: args[0].flatten(0, 1)}))
        )
    model(tokens)
    for handle in handles:
        handle.remove()
    return {name: x.double().numpy() for name, x in seen.items()}


def naive_wanda_mask(weight, inputs, sparsity, drop_count):
    scores = np.abs(weight) * np.linalg.norm(inputs, axis=0)
    share = int(Fraction(sparsity) * weight.shape[1])
    order = np.argsort(scores, axis=1, kind="stable")
    keep = np.ones(weight.shape, dtype=bool)
    np.put_along_axis(keep, order[:, :share], False, axis=1)
    following = [(scores[row, order[row, share]], row) for row in range(len(weight))]
    for _, row in sorted(following)[: drop_count(sparsity, weight.size) - share * len(weight)]:
        keep[row, order[row, share]] = False
    return keep


@pytest.mark.parametrize("sparsity", ["0.5", "0.6", "0.9"])
def test_wanda_masks_are_those_of_the_naive_sequential_protocol(sparsity, tiny_llama, tokens, drop_count):
    job = Job(tiny_llama(blocks=3), wanda.Options(), Fraction(sparsity), seed=0, tokens=tokens)
    cell = wanda.METHOD.prune_cell(job)
    naive = tiny_llama(blocks=3)
    for block in range(3):
        inputs = inputs_of(naive, block, tokens)
        for name, linear in linears_of(naive, block).items():
            keep = naive_wanda_mask(linear.weight.double().numpy(), inputs[name], sparsity, drop_count)
            np.testing.assert_array_equal(cell.tensors[f"{name}.keep"].numpy(), keep, err_msg=name)
            linear.weight.data *= torch.from_numpy(keep)
    assert len(cell.tensors) == 3 * len(LINEARS)


def test_earlier_blocks_being_pruned_changes_the_masks_of_later_ones(tiny_llama, tokens, drop_count):
    cell = wanda.METHOD.prune_cell(Job(tiny_llama(), wanda.Options(), Fraction("0.6"), seed=0, tokens=tokens))
    dense = tiny_llama()
    inputs = inputs_of(dense, 1, tokens)
    changed = [
        not np.array_equal(
            naive_wanda_mask(linear.weight.double().numpy(), inputs[name], "0.6", drop_count),
            cell.tensors[f"{name}.keep"].numpy(),
        )
        for name, linear in linears_of(dense, 1).items()
    ]
    assert any(changed)


@pytest.mark.parametrize("method", [sparsegpt, thanos, admm])
def test_the_logged_error_is_that_of_the_layers_outputs_in_the_sequential_protocol(method, tiny_llama, tokens):
    model = tiny_llama(blocks=3)
    cell = method.METHOD.prune_cell(Job(model, method.Options(), Fraction("0.5"), seed=0, tokens=tokens))
    logged = {row["tensor"]: row["relative_error"] for row in cell.log}
    naive = tiny_llama(blocks=3)
    for block in range(3):
        inputs = inputs_of(naive, block, tokens)
        for name, linear in linears_of(naive, block).items():
            weight, pruned = linear.weight.double().numpy(), cell.tensors[f"{name}.values"].double().numpy()
            error = np.sum((inputs[name] @ (weight - pruned).T) ** 2) / np.sum((inputs[name] @ weight.T) ** 2)
            assert logged[name] == pytest.approx(error, rel=1e-3)
            linear.weight.data.copy_(torch.from_numpy(pruned))


@pytest.mark.parametrize("method", [magnitude, *DATA_METHODS])
def test_the_log_has_one_row_a_matrix_with_its_integer_counts(method, tiny_llama, tokens):
    model = tiny_llama()
    cell = method.METHOD.prune_cell(Job(model, method.Options(), Fraction("0.6"), seed=0, tokens=tokens))
    state = model.state_dict()
    assert [(row["block"], row["tensor"]) for row in cell.log] == [
        (block, name) for block in range(2) for name in linears_of(model, block)
    ]
    for row in cell.log:
        assert row["numel"] == state[row["tensor"]].numel()
        assert row["kept"] == int(state[row["tensor"]].count_nonzero())


@pytest.mark.parametrize("method", DATA_METHODS)
def test_pruning_twice_from_the_same_start_gives_the_same_cell(method, tiny_llama, tokens):
    start = tiny_llama()
    cells = [
        method.METHOD.prune_cell(Job(copy.deepcopy(start), method.Options(), Fraction("0.5"), seed=0, tokens=tokens))
        for _ in range(2)
    ]
    assert all(torch.equal(tensor, cells[1].tensors[name]) for name, tensor in cells[0].tensors.items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", [magnitude, *DATA_METHODS])
@pytest.mark.parametrize("tensor", ["mlp.gate_proj", "mlp.down_proj"])
def test_weights_that_are_not_finite_are_an_error_that_names_them(method, bad, tensor, tiny_llama, tokens):
    model = tiny_llama(blocks=3)
    model.model.layers[1].get_submodule(tensor).weight.data[2, 3] = bad
    with pytest.raises(UserError, match=rf"weights of model\.layers\.1\.{tensor}\.weight \(block 1\).*not finite"):
        method.METHOD.prune_cell(Job(model, method.Options(), Fraction("0.5"), seed=0, tokens=tokens))


WHERE = {
    "input_layernorm": "self_attn.q_proj",
    "self_attn.v_proj": "self_attn.o_proj",
    "post_attention_layernorm": "mlp.gate_proj",
    "mlp.up_proj": "mlp.down_proj",
}
"""What makes the inputs of a matrix huge or broken, and the first matrix that sees it."""


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("place", ["input_layernorm", "post_attention_layernorm"])
@pytest.mark.parametrize("method", DATA_METHODS)
def test_inputs_that_are_not_finite_are_an_error_that_names_the_matrix(method, bad, place, tiny_llama, tokens):
    model = tiny_llama(blocks=3)
    model.model.layers[1].get_submodule(place).weight.data[4] = bad
    named = rf"inputs of model\.layers\.1\.{WHERE[place]}\.weight \(block 1\).*not finite"
    with pytest.raises(UserError, match=named):
        method.METHOD.prune_cell(Job(model, method.Options(), Fraction("0.5"), seed=0, tokens=tokens))


@pytest.mark.parametrize("place", ["self_attn.v_proj", "mlp.up_proj"])
@pytest.mark.parametrize("method", DATA_METHODS)
def test_finite_weights_that_overflow_in_the_forward_pass_name_the_matrix_that_sees_it(
    method, place, tiny_llama, tokens
):
    model = tiny_llama(blocks=3)
    model.model.layers[1].get_submodule(place).weight.data[1] = 2e38
    named = rf"inputs of model\.layers\.1\.{WHERE[place]}\.weight \(block 1\).*not finite"
    with pytest.raises(UserError, match=named):
        method.METHOD.prune_cell(Job(model, method.Options(), Fraction("0.5"), seed=0, tokens=tokens))


@pytest.mark.parametrize("method", [sparsegpt, thanos, admm])
def test_moved_weights_that_overflow_their_dtype_are_an_error_that_names_them(method, tiny_llama, tokens):
    """Float16 ends at 65504."""

    def rule(layer, options):
        pruned = method.prune_layer(layer, options)
        return replace(pruned, values=pruned.values * 1e6) if layer.name.endswith("1.mlp.gate_proj.weight") else pruned

    job = Job(tiny_llama(dtype=torch.float16), method.Options(), Fraction("0.5"), seed=0, tokens=tokens)
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.gate_proj\.weight \(block 1\).*finite in float16"):
        prune_layers(job, rule, "gram", job.options.facts)


@pytest.mark.parametrize("method", DATA_METHODS)
def test_training_sequences_are_those_that_a_training_of_the_seed_reads(method, tiny_llama, tokens):
    """Step by step, in batches of two: the method sees no other sequence."""
    read = torch.cat([batch_indices(step, 2, len(tokens), 3) for step in range(2)])
    options = method.Options(training_sequences=4)
    asked = method.METHOD.prune_cell(Job(tiny_llama(), options, Fraction("0.5"), seed=3, tokens=tokens))
    own = Job(tiny_llama(), method.Options(), Fraction("0.5"), seed=3, tokens=tokens[read])
    expected = method.METHOD.prune_cell(own)
    assert len(set(read.tolist())) == 4 < len(tokens)
    assert asked.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(asked.tensors[name], expected.tensors[name]) for name in expected.tensors)
    assert method.METHOD.tokens_of(options) == "mask_training"
    assert method.METHOD.tokens_of(method.Options()) == "calibration"


def test_more_training_sequences_than_there_are_are_refused(tiny_llama, tokens):
    options = admm.Options(training_sequences=len(tokens) + 1)
    job = Job(tiny_llama(), options, Fraction("0.5"), seed=0, tokens=tokens)
    with pytest.raises(UserError, match=f"training_sequences is {len(tokens) + 1}; it may be {len(tokens)} at most"):
        admm.METHOD.prune_cell(job)
