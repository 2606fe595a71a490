"""Whatever the source, a fetched model is weights, tokenizer and configuration, described without loading it."""

import json
from pathlib import Path

import pytest
import torch

from leap_repro.models.examine import describe, empty_model, examine
from leap_repro.models.fetch import fetch_bundled, fetch_path
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.models.prunable import prunable_linears
from leap_repro.pipeline.reading import read_config
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.hashes import sha256_of

CONFIG = read_config(project=Path(__file__).resolve().parents[3])
BUNDLED = CONFIG["scales"]["miniature"]["models"]


@pytest.fixture
def payload(tmp_path):
    folder = tmp_path / "payload"
    folder.mkdir()
    return folder


@pytest.fixture
def checkpoint(tmp_path, build_tiny, tokenizer):
    """A saved tiny OPT with its tokenizer, and with code and pickles that must not travel."""
    folder = tmp_path / "checkpoint"
    build_tiny("opt").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "modeling_opt.py").write_text("raise SystemExit('this ran')\n")
    torch.save({}, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_a_bundled_model_of_the_config_is_whole(name, payload):
    fetch_bundled(BUNDLED[name], payload)
    facts, model = describe(examine(payload), payload), load_model(payload)
    assert facts["revision"] == sha256_of(payload / "model.safetensors")
    assert facts["architecture"] == type(model).__name__
    assert facts["parameters"] == model.num_parameters()
    assert facts["prunable"] == sum(linear.weight.numel() for linear in prunable_linears(model))
    ids = load_tokenizer(payload)("In which town?")["input_ids"]
    assert torch.isfinite(model(torch.tensor([ids])).logits).all()


def test_an_unknown_bundled_model_is_refused_with_the_known_ones(payload, refused):
    with refused("gpt-5-mini", "gemma3-1b-mini"):
        fetch_bundled({"source": "bundled", "name": "gpt-5-mini"}, payload)


def test_bundled_weights_that_differ_from_the_pinned_sha256_are_refused(payload, refused):
    with refused("gemma3-1b-mini", "0" * 64):
        fetch_bundled({"source": "bundled", "name": "gemma3-1b-mini", "sha256": "0" * 64}, payload)


def test_a_local_checkpoint_is_copied_without_code_and_pickles(checkpoint, payload):
    fetch_path({"source": "path", "path": str(checkpoint)}, payload)
    copied = {path.name for path in payload.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= copied
    assert not [name for name in copied if name.endswith((".py", ".bin"))]
    assert sha256_of(payload / "model.safetensors") == sha256_of(checkpoint / "model.safetensors")


def test_weights_get_a_second_name_and_what_people_edit_is_copied(checkpoint, payload):
    fetch_path({"source": "path", "path": str(checkpoint)}, payload)
    for path in payload.iterdir():
        assert path.samefile(checkpoint / path.name) == (path.suffix == ".safetensors"), path.name


def test_weights_that_are_written_over_in_place_are_refused_and_replaced_ones_change_nothing(
    checkpoint, tmp_path, refused
):
    with writing(tmp_path / "model", {}) as (payload, _):
        fetch_path({"source": "path", "path": str(checkpoint)}, payload)
    weights, artifact = checkpoint / "model.safetensors", Artifact.read(tmp_path / "model")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"\x55")
    with refused("model.safetensors", "differs from its manifest"):
        artifact.verified_payload()
    weights.write_bytes(whole)
    (checkpoint / "new").write_bytes(b"others")
    (checkpoint / "new").replace(weights)
    assert artifact.verified_payload()


def test_a_fetched_checkpoint_loads_to_the_same_model_and_tokenizer(checkpoint, payload, build_tiny, tokenizer):
    fetch_path({"source": "path", "path": str(checkpoint)}, payload)
    loaded, original = load_model(payload).state_dict(), build_tiny("opt").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in original.items())
    text = "The friend of Dala lives in Arden."
    assert load_tokenizer(payload)(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_the_description_counts_what_the_model_holds(checkpoint, payload, build_tiny):
    fetch_path({"source": "path", "path": str(checkpoint)}, payload)
    model = build_tiny("opt")
    assert describe(empty_model(payload), payload) == {
        "architecture": "OPTForCausalLM",
        "revision": sha256_of(checkpoint / "model.safetensors"),
        "parameters": model.num_parameters(),
        "prunable": 3 * (4 * 32 * 32 + 2 * 32 * 48),
        "block_parameters": sum(p.numel() for p in model.model.decoder.layers.parameters()),
        "blocks": 3,
        "largest_block": sum(p.numel() for p in model.model.decoder.layers[0].parameters()),
        "largest_gram": 5 * 32**2 + 48**2,
    }


def test_the_revision_of_several_weight_files_depends_on_each(checkpoint):
    model, whole = empty_model(checkpoint), sha256_of(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").rename(checkpoint / "one.safetensors")
    places = {"a": "one.safetensors", "b": "two.safetensors"}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (checkpoint / "two.safetensors").write_bytes(b"1")
    one = describe(model, checkpoint)["revision"]
    (checkpoint / "two.safetensors").write_bytes(b"2")
    assert one != describe(model, checkpoint)["revision"] != whole


@pytest.mark.parametrize(
    ("files", "word"),
    [
        (None, "not a folder"),
        ((), "config.json"),
        (("config.json",), ".safetensors"),
        (("config.json", "pytorch_model.bin"), ".safetensors"),
        (("model.safetensors",), "config.json"),
    ],
    ids=["missing", "empty", "no weights", "pickled weights only", "no config"],
)
def test_a_folder_that_is_no_safe_checkpoint_is_refused_by_its_path(tmp_path, payload, refused, files, word):
    folder = tmp_path / "odd"
    if files is not None:
        folder.mkdir()
        for name in files:
            (folder / name).write_text("{}")
    with refused(str(folder), word):
        fetch_path({"source": "path", "path": str(folder)}, payload)
    assert not list(payload.iterdir())


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (json.dumps({"model_type": "nosuch"}), "nosuch"),
        (json.dumps({"model_type": "t5"}), "t5"),
        (json.dumps({"hidden_size": 3}), "model type"),
        ("{", "config.json"),
    ],
    ids=["unknown type", "no causal model", "no type", "broken"],
)
def test_a_config_that_is_no_known_causal_model_is_refused(payload, refused, text, word):
    (payload / "config.json").write_text(text)
    with refused(word):
        empty_model(payload)
