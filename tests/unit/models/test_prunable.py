"""What is pruned: the matrices inside the decoder blocks, whatever the family, and nothing else."""

import copy

import pytest

from leap_repro.models import prunable
from leap_repro.models.prunable import decoder_blocks, prunable_linears

PER_BLOCK = {"llama": 7, "qwen2": 7, "gemma3_text": 7, "opt": 6, "gpt_neox": 4}


def test_every_matrix_of_every_block_is_found_by_its_state_dict_name(tiny_model):
    state = tiny_model.state_dict()
    matrices = {name for name, tensor in state.items() if ".layers." in name and tensor.ndim == 2}
    linears = prunable_linears(tiny_model)
    assert len(linears) == 3 * PER_BLOCK[tiny_model.config.model_type]
    assert {linear.name for linear in linears} == matrices
    assert all(linear.weight.data_ptr() == state[linear.name].data_ptr() for linear in linears)


def test_embeddings_and_the_head_are_never_found(tiny_model):
    outside = {id(tiny_model.get_input_embeddings().weight), id(tiny_model.get_output_embeddings().weight)}
    linears = prunable_linears(tiny_model)
    assert not outside & {id(linear.weight) for linear in linears}
    assert not any(word in linear.name for linear in linears for word in ("embed", "lm_head", "project_"))


def test_the_block_of_a_matrix_is_the_number_in_its_name(tiny_model):
    prefix, blocks = decoder_blocks(tiny_model)
    assert len(blocks) == 3
    for linear in prunable_linears(tiny_model):
        assert linear.name.startswith(f"{prefix}.{linear.block}.")


def test_the_order_is_that_of_the_model(tiny_model):
    names = [linear.name for linear in prunable_linears(tiny_model)]
    order = [name for name, _ in tiny_model.named_parameters()]
    assert names == sorted(names, key=order.index)


@pytest.mark.parametrize("find", [decoder_blocks, prunable_linears])
def test_a_model_without_linear_layers_in_its_blocks_is_refused(build_tiny, refused, find):
    with refused("GPT2LMHeadModel", "nn.Linear"):
        find(build_tiny("gpt2"))


def test_a_model_is_probed_once_and_a_copy_has_its_own_structure(build_tiny, monkeypatch):
    model, calls = build_tiny("llama"), []
    probe = prunable.called_modules
    monkeypatch.setattr(prunable, "called_modules", lambda found: calls.append(found) or probe(found))
    first = prunable_linears(model)
    assert prunable_linears(model) == first
    assert len(calls) == 1
    copied = copy.deepcopy(model)
    assert [linear.name for linear in prunable_linears(copied)] == [linear.name for linear in first]
    for linear in prunable_linears(copied):
        assert linear.module is copied.get_submodule(linear.name.removesuffix(".weight"))
    assert len(calls) == 1
    assert not any("structure" in name for name in model.state_dict())
