"""A checkpoint that is not the model of its configuration is refused by its tensors' names, before a weight is read."""

import json

import pytest
import torch
from families import tiny
from safetensors.torch import load_file, save_file

from leap_repro.models.agreement import check_agreement
from leap_repro.models.examine import empty_model


@pytest.fixture(params=["llama", "mixtral"])
def family(request):
    return request.param


@pytest.fixture
def folder(family, tmp_path):
    tiny(family).save_pretrained(tmp_path)
    return tmp_path


def edit(folder, change):
    """Rewrite the weights as {name: tensor} that `change` makes of them."""
    path = folder / "model.safetensors"
    save_file({name: tensor.clone() for name, tensor in change(load_file(path)).items()}, path)


def check(folder):
    return check_agreement(empty_model(folder), folder)


def test_a_whole_checkpoint_agrees(folder):
    assert all(parameter.is_meta for parameter in check(folder).parameters())


CASES = {
    "names that torch.compile gives": (
        lambda t: {f"_orig_mod.{name}": tensor for name, tensor in t.items()},
        ("the files lack", "the model has no", "_orig_mod."),
    ),
    "a block that is missing": (
        lambda t: {name: tensor for name, tensor in t.items() if ".layers.1." not in name},
        ("the files lack model.layers.1.", "more"),
    ),
    "a block too many": (
        lambda t: t | {name.replace(".1.", ".2."): tensor for name, tensor in t.items() if ".layers.1." in name},
        ("the model has no model.layers.2.",),
    ),
    "a head that is missing": (
        lambda t: {name: tensor for name, tensor in t.items() if name != "lm_head.weight"},
        ("the files lack lm_head.weight",),
    ),
    "a block too many, without the prefix": (
        lambda t: t | {name.replace("model.layers.1.", "layers.7."): tensor for name, tensor in t.items()},
        ("layers.7.",),
    ),
    "a block under both prefixes": (
        lambda t: t | {name.removeprefix("model."): tensor for name, tensor in t.items() if ".layers.1.self" in name},
        ("are both model.layers.1.self_attn.",),
    ),
    "whole numbers": (
        lambda t: t | {"model.layers.0.self_attn.q_proj.weight": torch.zeros(32, 32, dtype=torch.int64)},
        ("model.layers.0.self_attn.q_proj.weight is of type I64",),
    ),
    "yes and no": (
        lambda t: t | {"model.norm.weight": torch.ones(32, dtype=torch.bool)},
        ("model.norm.weight is of type BOOL",),
    ),
    "another shape": (
        lambda t: t | {"model.layers.0.self_attn.q_proj.weight": torch.zeros(16, 32)},
        ("model.layers.0.self_attn.q_proj.weight ([16, 32], config.json asks for [32, 32])",),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_of_another_model_is_refused_by_its_tensors(folder, refused, case):
    change, words = CASES[case]
    edit(folder, change)
    with refused(*words):
        check(folder)


@pytest.mark.parametrize("missing", ["experts.3.w1.", "experts.3."])
@pytest.mark.parametrize("family", ["mixtral"], indirect=True)
def test_an_expert_that_is_missing_is_refused(folder, refused, missing):
    edit(
        folder,
        lambda t: {name: tensor for name, tensor in t.items() if f"layers.1.block_sparse_moe.{missing}" not in name},
    )
    with refused("MixtralForCausalLM"):
        check(folder)


@pytest.mark.parametrize("family", ["llama"], indirect=True)
def test_tensors_of_another_part_and_old_buffers_are_allowed(folder, caplog):
    more = {"vision_tower.patch.weight": torch.zeros(3), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}
    edit(folder, lambda t: t | more)
    with caplog.at_level("INFO"):
        check(folder)
    assert "vision_tower.patch.weight" in caplog.text


def test_a_bare_body_with_tied_embeddings_is_the_model(tmp_path):
    model = tiny("qwen2")
    model.model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    check(tmp_path)
