"""Streamed pruning gives, to the bit, what pruning the whole model in memory gives.

The oracle is the walk as it was before there was streaming: the whole model is loaded, one ordinary forward pass
records how every block is called, and all hidden states of a block are kept beside those of the next.
"""

from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from leap_repro.models.load import load_model
from leap_repro.models.prunable import decoder_blocks, prunable_linears
from leap_repro.models.stream import stream_model
from leap_repro.models.walker import BlockCall, BlockRunner
from leap_repro.prune.job import Job
from leap_repro.prune.layerwise import driver
from leap_repro.prune.layerwise.declaration import LayerWise
from leap_repro.prune.layerwise.layer import PrunedLayer
from leap_repro.prune.methods import declaration, names, wanda
from leap_repro.store.tensor_files import TensorFolder

RELEASED = Path(str(files("leap_repro.miniature") / "released"))


def layerwise_methods():
    """The names of all methods that prune matrix by matrix."""
    return [name for name in names() if isinstance(declaration(name), LayerWise)]


@torch.no_grad()
def calls_of(model, tokens):
    """The first hidden states and how every block is called, from one ordinary pass of the whole model."""
    calls, handles = [], []
    for block in decoder_blocks(model)[1]:
        hook = lambda module, args, kwargs: calls.append((args, dict(kwargs)))  # noqa: E731
        handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
    model(tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    return calls[0][0][0].clone(), [BlockCall(args[1:], kwargs) for args, kwargs in calls]


@torch.no_grad()
def walk_in_memory(model, tokens, batch_size, residency):
    recorded = [calls_of(model, batch) for batch in tokens.split(batch_size)]
    hidden = [first for first, _ in recorded]
    for index, block in enumerate(decoder_blocks(model)[1]):
        calls = [batch_calls[index] for _, batch_calls in recorded]
        linears = [linear for linear in prunable_linears(model) if linear.block == index]
        yield linears, BlockRunner(block, calls, hidden)
        hidden = [call(block, batch) for call, batch in zip(calls, hidden, strict=True)]


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(3, 300, (19, 24), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["gemma3-1b-mini", "llama3.2-1b-mini"])
@pytest.mark.parametrize("method", layerwise_methods())
def test_streamed_equals_in_memory_to_the_bit(method, name, dtype, tokens, tmp_path, monkeypatch):
    chosen = declaration(method)
    common = {"options": chosen.options(), "sparsity": Fraction(int(method != "dense"), 2), "seed": 0, "tokens": tokens}
    model, residency = stream_model(RELEASED / name, dtype)
    store = TensorFolder(tmp_path)
    streamed = chosen.prune_cell(Job(model, **common, residency=residency, store=store))
    monkeypatch.setattr(driver, "walk_blocks", walk_in_memory)
    expected = chosen.prune_cell(Job(load_model(RELEASED / name, dtype), **common))
    assert set(streamed.tensors) == set(expected.tensors)
    assert all(torch.equal(store[key], tensor) for key, tensor in expected.tensors.items())
    assert all(store[key].dtype == tensor.dtype for key, tensor in expected.tensors.items())
    assert streamed.log == expected.log


def test_one_block_is_in_memory_and_those_before_it_are_on_disk(tokens, tmp_path):
    model, residency = stream_model(RELEASED / "qwen2.5-0.5b-mini")
    blocks = decoder_blocks(model)[1]
    seen = []

    def rule(layer, options):
        resident = [index for index, block in enumerate(blocks) if not next(block.parameters()).is_meta]
        seen.append((resident, len(list(tmp_path.glob("*.safetensors")))))
        return PrunedLayer(layer.weight > 0)

    job = Job(model, wanda.Options(), Fraction(0), 0, tokens, residency=residency, store=TensorFolder(tmp_path))
    driver.prune_layers(job, rule, "norms", job.options.facts)
    assert [entry for index, entry in enumerate(seen) if index % 7 == 0] == [([k], k) for k in range(len(blocks))]
    assert len(seen) == 7 * len(blocks)


@pytest.mark.parametrize(("length", "sequences"), [(12, 16), (128, 16), (512, 16), (1024, 8), (2048, 4), (9000, 1)])
def test_long_sequences_pass_in_smaller_batches(length, sequences):
    assert driver.calibration_batch(length) == sequences
