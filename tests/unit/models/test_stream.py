"""A streamed model is the whole model, except that at most one block's weights are in memory."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from leap_repro.models.load import load_model
from leap_repro.models.prunable import decoder_blocks
from leap_repro.models.stream import always_resident, stream_model

FAMILIES = ["llama", "qwen2", "gemma3_text", "opt", "gpt_neox"]


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request):
    return request.param


@pytest.fixture(params=FAMILIES)
def checkpoint(request, build_tiny, tmp_path):
    """A folder with a tiny model's weights in two shards."""
    build_tiny(request.param).save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    return tmp_path


def parameters_of(module):
    return dict(module.named_parameters())


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_all_outside_the_blocks_is_that_of_the_whole_model(checkpoint, dtype):
    whole, (streamed, _) = load_model(checkpoint, dtype), stream_model(checkpoint, dtype)
    name, _ = decoder_blocks(whole)
    real = {key: value for key, value in parameters_of(streamed).items() if not value.is_meta}
    body = f"{whole.base_model_prefix}."
    assert set(real) == {key for key in parameters_of(whole) if key.startswith(body) and not key.startswith(f"{name}.")}
    assert all(torch.equal(value, parameters_of(whole)[key]) for key, value in real.items())
    assert all(value.dtype == parameters_of(whole)[key].dtype for key, value in real.items())


def test_buffers_are_those_of_the_whole_model(checkpoint, dtype):
    whole, (streamed, _) = load_model(checkpoint, dtype), stream_model(checkpoint, dtype)
    expected = dict(whole.named_buffers())
    found = dict(streamed.named_buffers())
    assert set(found) == set(expected)
    assert all(found[key].dtype == expected[key].dtype for key in expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_block_is_real_during_its_turn_only(checkpoint, dtype):
    whole, (streamed, residency) = load_model(checkpoint, dtype), stream_model(checkpoint, dtype)
    blocks = decoder_blocks(streamed)[1]
    for index, expected in enumerate(decoder_blocks(whole)[1]):
        with residency(index):
            resident = [all(not p.is_meta for p in block.parameters()) for block in blocks]
            assert resident == [position == index for position in range(len(blocks))]
            for key, value in parameters_of(blocks[index]).items():
                assert torch.equal(value, parameters_of(expected)[key])
                assert value.dtype == parameters_of(expected)[key].dtype
                assert not value.requires_grad
        assert all(p.is_meta for block in blocks for p in block.parameters())


def test_changes_reach_neither_the_files_nor_the_next_turn(checkpoint):
    before = digests(checkpoint)
    streamed, residency = stream_model(checkpoint)
    block = decoder_blocks(streamed)[1][1]
    with residency(1):
        first = {key: value.clone() for key, value in parameters_of(block).items()}
        for value in block.parameters():
            value.data.zero_()
    with residency(1):
        assert all(torch.equal(value, first[key]) for key, value in parameters_of(block).items())
    assert digests(checkpoint) == before


def test_a_block_is_given_back_when_its_turn_fails(checkpoint):
    streamed, residency = stream_model(checkpoint)
    with pytest.raises(RuntimeError, match="stop"), residency(0):
        raise RuntimeError("stop")
    assert all(p.is_meta for p in decoder_blocks(streamed)[1].parameters())


def rename(folder, change):
    for path in folder.glob("*.safetensors"):
        save_file({change(key): value for key, value in load_file(path).items()}, path, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)


def test_a_checkpoint_of_the_bare_body_is_streamed_too(build_tiny, tmp_path):
    build_tiny("llama").model.save_pretrained(tmp_path)
    streamed, residency = stream_model(tmp_path)
    assert residency is not always_resident
    with residency(2):
        expected = build_tiny("llama").model.layers[2]
        found = parameters_of(streamed.model.layers[2])
        assert all(torch.equal(value, found[key]) for key, value in parameters_of(expected).items())


def test_tensors_of_unknown_names_are_left_to_transformers(build_tiny, tmp_path):
    build_tiny("gpt_neox").save_pretrained(tmp_path)
    rename(tmp_path, lambda key: key.replace("attention.dense", "attention.output"))
    model, residency = stream_model(tmp_path)
    assert residency is always_resident
    assert not any(p.is_meta for p in model.parameters())


def test_a_folder_without_a_model_is_refused(tmp_path, refused):
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    with refused(str(tmp_path), "not a causal language model"):
        stream_model(tmp_path)
