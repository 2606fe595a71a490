"""Which files are the checkpoint is one rule, and what their headers and configuration tell is refused by name."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from leap_repro.models.checkpoint import (
    check_json,
    checkpoint_files,
    position_limit,
    read_config,
    refuse_deep,
    refuse_quantised,
    tensors,
    weight_files,
)


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of one file."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file({"a.weight": torch.zeros(2, 3), "b.weight": torch.ones(4)}, tmp_path / "model.safetensors")
    return tmp_path


def shard(folder, places):
    """The same in shards, by an index."""
    (folder / "model.safetensors").unlink()
    for name in set(places.values()):
        save_file({key: torch.zeros(2) for key, file in places.items() if file == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


PLACES = {"a": "model-1.safetensors", "b": "model-2.safetensors"}


def test_one_file_or_those_of_the_index_whatever_lies_beside_them(folder):
    save_file({"a.weight": torch.ones(9)}, folder / "model-00001-of-00002.safetensors")
    assert weight_files(folder) == [folder / "model.safetensors"]
    assert tensors(folder)["a.weight"].shape == (2, 3)
    shard(folder, PLACES)
    assert [path.name for path in weight_files(folder)] == sorted(PLACES.values())
    assert set(tensors(folder)) == {"a", "b"}


def test_what_travels_is_weights_tokenizer_and_configuration(folder):
    for name in (
        "tokenizer.json",
        "preprocessor_config.json",
        "chat_template.jinja",
        "code.py",
        "optimizer.pt",
        ".x.json",
    ):
        (folder / name).write_text("{}")
    for name in ("adapter_config.json", "adapter_model.safetensors", "stale.safetensors"):
        (folder / name).write_text("{}")
    names = {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json", "chat_template.jinja"}
    assert {path.name for path in checkpoint_files(folder)} == names


def broken_index(folder, content):
    shard(folder, PLACES)
    (folder / "model.safetensors.index.json").write_text(content)


CASES = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    "weights of another name": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.safetensors"),
        "it has only ['pytorch_model.safetensors']",
    ),
    "no configuration": (lambda f: (f / "config.json").unlink(), "config.json"),
    "a shard that is missing": (
        lambda f: (shard(f, PLACES), (f / "model-2.safetensors").unlink()),
        "['model-2.safetensors']",
    ),
    "an index that is no index": (lambda f: broken_index(f, '{"map": {}}'), "weight_map"),
    "an index without metadata, which transformers asks for": (
        lambda f: broken_index(f, json.dumps({"weight_map": PLACES})),
        "metadata",
    ),
    "an index that is no JSON": (lambda f: broken_index(f, "{"), "JSON object"),
    "an index that leads elsewhere": (
        lambda f: broken_index(f, '{"metadata": {}, "weight_map": {"a": "../x.safetensors"}}'),
        "../x.safetensors",
    ),
    "an index that puts a tensor where it is not": (
        lambda f: broken_index(f, json.dumps({"metadata": {}, "weight_map": PLACES | {"b": "model-1.safetensors"}})),
        "the tensor b",
    ),
    "two checkpoints": (
        lambda f: (shard(f, PLACES), save_file({"a": torch.zeros(2)}, f / "model.safetensors")),
        "two checkpoints",
    ),
    "a tensor in two shards": (
        lambda f: (shard(f, PLACES), save_file({"a": torch.zeros(2), "b": torch.zeros(2)}, f / "model-2.safetensors")),
        "the tensor a is in",
    ),
    "an adapter alone": (
        lambda f: [
            p.rename(f / n)
            for p, n in zip(sorted(f.iterdir()), ["adapter_config.json", "adapter_model.safetensors"], strict=True)
        ],
        "only an adapter",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_is_no_checkpoint_is_refused(folder, refused, case):
    spoil, word = CASES[case]
    spoil(folder)
    with refused(str(folder), word):
        tensors(folder)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
        ({"compression_config": {"format": "pack-quantized"}}, "compression_config"),
        ({"quantization_config": {}}, "unnamed"),
    ],
)
def test_a_configuration_that_says_quantised_is_refused(folder, refused, config, word):
    (folder / "config.json").write_text(json.dumps(config))
    with refused("quantised", word):
        refuse_quantised(folder, tensors(folder))


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(2, 2, dtype=torch.float8_e4m3fn), "F8_E4M3"),
        (torch.zeros(2, 2, dtype=torch.int8), "I8"),
        (torch.zeros(4, 1, dtype=torch.uint8), "U8"),
        (torch.zeros(2, 2, dtype=torch.int32), "I32"),
    ],
)
def test_tensors_that_are_codes_are_refused_though_no_configuration_says_so(folder, refused, tensor, kind):
    save_file({"layers.0.q_proj.weight": tensor}, folder / "model.safetensors")
    with refused("layers.0.q_proj.weight", kind):
        refuse_quantised(folder, tensors(folder))


def test_weights_that_only_the_configuration_names_are_refused(folder, refused):
    (folder / "config.json").write_text('{"transformers_weights": "other.safetensors", "text_config": "x"}')
    with refused("transformers_weights", "model.safetensors"):
        refuse_quantised(folder, tensors(folder))


def test_masks_and_positions_of_old_checkpoints_are_no_codes(folder):
    old = {"attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8), "mask": torch.ones(2, 2, dtype=torch.bool)}
    save_file(old | {"position_ids": torch.zeros(1, 4, dtype=torch.int64)}, folder / "model.safetensors")
    refuse_quantised(folder, tensors(folder))


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 64}, 64),
        ({"n_positions": 32}, 32),
        ({"max_seq_len": 16}, 16),
        ({"n_ctx": 8}, 8),
        ({"text_config": {"max_position_embeddings": 4}, "vision_config": {"max_position_embeddings": 2}}, 4),
        ({"max_position_embeddings": None}, None),
        ({}, None),
    ],
)
def test_positions_are_limited_under_any_name(folder, config, limit):
    (folder / "config.json").write_text(json.dumps(config))
    assert position_limit(read_config(folder)) == limit


def write_header(folder, header, data=b"\0" * 40, length=None):
    """A safetensors file with this header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def entry(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


WHOLE = {"a": entry(0, 24, [2, 3]), "b": entry(24, 40, [4])}
HEADERS = {
    "overlapping": (WHOLE | {"b": entry(20, 40, [5])}, "begins at byte 20"),
    "a hole": (WHOLE | {"a": entry(0, 20, [5])}, "begins at byte 24"),
    "backwards": ({"a": entry(24, 0, [6]), "b": entry(24, 40, [4])}, "a"),
    "a larger shape": (WHOLE | {"a": entry(0, 24, [2, 10**12])}, "24 bytes"),
    "a smaller shape": (WHOLE | {"a": entry(0, 24, [2, 2])}, "24 bytes"),
    "another type": (WHOLE | {"a": entry(0, 24, [2, 3], "F16")}, "24 bytes"),
    "a negative shape": (WHOLE | {"a": entry(0, 24, [-2, -3])}, "whole numbers"),
    "a shape of fractions": (WHOLE | {"a": entry(0, 24, [2.0, 3.0])}, "whole numbers"),
    "a shape of words": (WHOLE | {"a": entry(0, 24, ["2", "3"])}, "a"),
    "places of words": (WHOLE | {"a": entry("0", "24", [2, 3])}, "header"),
    "a name twice": (json.dumps(WHOLE)[:-1].encode() + b', "a": {}}', "header"),
    "a list": (b"[]", "header"),
    "brackets without end": (b"[" * 100_000, "header"),
    "an entry that is a number": (WHOLE | {"a": 3}, "header"),
}


def test_a_header_that_is_right_is_read(folder):
    write_header(folder, WHOLE)
    assert tensors(folder)["b"].shape == (4,)


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_is_wrong_is_one_sentence(folder, refused, case):
    header, words = HEADERS[case]
    write_header(folder, header)
    with refused("model.safetensors", words):
        tensors(folder)


def test_a_header_that_says_that_it_is_huge_is_not_read(folder, refused):
    write_header(folder, WHOLE, length=2**62)
    with refused("model.safetensors", "header"):
        tensors(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "generation_config.json"])
def test_brackets_without_end_are_no_json(folder, refused, name):
    (folder / name).write_text('{"a":' * 100_000)
    with refused(name, "not a JSON object"):
        read_config(folder), weight_files(folder), check_json(folder)


@pytest.mark.parametrize("part", [None, "text_config"])
@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "num_local_experts", "num_labels", "depth"])
def test_more_layers_than_the_files_have_tensors_are_not_built(folder, refused, key, part):
    config = {key: 10**7}
    (folder / "config.json").write_text(json.dumps({part: config} if part else config))
    with refused("config.json", f"{key} 10000000", "2 tensors"):
        refuse_deep(folder, 2)


def test_large_numbers_of_other_things_are_nobodys_business(folder):
    config = {"vocab_size": 10**6, "num_hidden_layers": 126, "layer_types": ["a"]}
    (folder / "config.json").write_text(json.dumps(config))
    refuse_deep(folder, 2)
