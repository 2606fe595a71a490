"""A checkpoint that is not the model of its configuration is refused by its tensors' names, before a weight is read."""

import json

import pytest
import torch
from families import tiny
from safetensors.torch import load_file, save_file

from leap_repro.models.agreement import check_agreement, check_tied_in_memory
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
        ("model.layers.0.self_attn.q_proj.weight ([16, 32], config.json requires [32, 32])",),
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


@pytest.fixture
def tied(tmp_path):
    """A function that saves a tied model whose files hold the head too, as `change` makes it of the embeddings."""

    def build(change):
        tiny("llama", tie_word_embeddings=True).save_pretrained(tmp_path)
        embeddings = "model.embed_tokens.weight"
        edit(tmp_path, lambda t: t | {"lm_head.weight": change(t[embeddings])})
        return tmp_path

    return build


@pytest.mark.parametrize("change", [torch.clone, torch.Tensor.double], ids=["equal", "in another type"])
def test_a_head_that_is_the_embeddings_once_more_is_allowed(tied, change):
    check(tied(change))


def one_more(weight):
    weight = weight.clone()
    weight[-1, -1] += 1
    return weight


def test_a_tied_model_with_another_head_in_its_files_is_refused(tied, refused):
    """transformers would score with that head, lm-eval with the embeddings."""
    with refused("lm_head.weight", "model.embed_tokens.weight", "tie_word_embeddings"):
        check(tied(one_more))


def test_a_tied_model_of_which_only_the_head_is_there_is_whole(tied):
    folder = tied(torch.clone)
    edit(folder, lambda t: {name: tensor for name, tensor in t.items() if "embed" not in name})
    check(folder)


def test_a_tied_model_with_neither_is_refused(tied, refused):
    folder = tied(torch.clone)
    edit(folder, lambda t: {name: v for name, v in t.items() if "embed" not in name and "head" not in name})
    with refused("the files lack"):
        check(folder)


@pytest.mark.parametrize("name", ["lm_head.bias", "model.norm.bias", "norm.bias", "model.embed_tokens.scale"])
@pytest.mark.parametrize("family", ["llama"], indirect=True)
def test_a_tensor_more_of_a_module_that_the_model_has_is_refused(folder, refused, name):
    edit(folder, lambda t: t | {name: torch.ones(3)})
    with refused("the model has no", name):
        check(folder)


def test_a_model_in_memory_that_was_parted_is_refused(refused):
    model = tiny("llama", tie_word_embeddings=True)
    check_tied_in_memory(model)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    check_tied_in_memory(model)
    model.lm_head.weight.data[0, 0] += 1
    with refused("lm_head.weight", "tie_word_embeddings"):
        check_tied_in_memory(model)
    model.config.tie_word_embeddings = False
    check_tied_in_memory(model)
