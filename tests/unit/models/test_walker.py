"""Walking block by block shows each layer exactly the inputs that the whole model would give it."""

import pytest
import torch
from torch import nn

from leap_repro.models.prunable import decoder_blocks, prunable_linears
from leap_repro.models.walker import record_calls, walk_blocks


class Inputs:
    """Keeps what a layer is given."""

    def __init__(self):
        self.seen = []

    def add(self, rows):
        self.seen.append(rows.clone())

    @property
    def rows(self):
        return torch.cat(self.seen)


class Looped(nn.Module):
    """A decoder that runs its blocks in a given order."""

    def __init__(self, order):
        super().__init__()
        self.order = order
        self.embedding = nn.Embedding(8, 4)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, tokens, use_cache=False):
        hidden = self.embedding(tokens)
        for index in self.order:
            hidden = self.blocks[index](hidden)
        return hidden


@pytest.fixture
def tokens():
    return torch.randint(3, 64, (4, 24), generator=torch.Generator().manual_seed(1))


def hidden_of(output):
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def ordinary_forward(model, tokens, batch_size):
    """From ordinary passes: each linear's inputs as rows, and the output of the last block."""
    linears = prunable_linears(model)
    inputs, last = {linear.name: Inputs() for linear in linears}, []
    handles = [
        linear.module.register_forward_hook(
            lambda module, args, output, name=linear.name: inputs[name].add(args[0].flatten(0, -2))
        )
        for linear in linears
    ]
    last_block = decoder_blocks(model)[1][-1]
    handles.append(last_block.register_forward_hook(lambda module, args, output: last.append(hidden_of(output))))
    for batch in tokens.split(batch_size):
        model(batch, use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: seen.rows for name, seen in inputs.items()}, last


@torch.no_grad()
def replay(runner):
    return [call(runner.block, hidden) for call, hidden in zip(runner.calls, runner.hidden, strict=True)]


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_walking_without_changes_ends_in_the_models_own_last_hidden_state(tiny_model, tokens, batch_size):
    _, expected = ordinary_forward(tiny_model, tokens, batch_size)
    *_, (_, last_runner) = walk_blocks(tiny_model, tokens, batch_size)
    walked = replay(last_runner)
    assert len(walked) == len(expected)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(walked, expected, strict=True))


def test_collect_sees_the_inputs_of_an_ordinary_pass(tiny_model, tokens):
    expected, _ = ordinary_forward(tiny_model, tokens, batch_size=2)
    names = []
    for linears, runner in walk_blocks(tiny_model, tokens, batch_size=2):
        observers = {linear.module: Inputs() for linear in linears}
        runner.collect(observers)
        for linear in linears:
            names.append(linear.name)
            assert torch.equal(observers[linear.module].rows, expected[linear.name])
    assert names == list(expected)


def test_the_next_blocks_inputs_come_from_the_block_as_it_was_left(tiny_model, tokens):
    walk = walk_blocks(tiny_model, tokens, batch_size=2)
    linears, _ = next(walk)
    with torch.no_grad():
        for linear in linears:
            linear.weight[:, ::2] = 0
    _, second = next(walk)
    embedded, calls = record_calls(tiny_model, tokens[:2])
    with torch.no_grad():
        expected = calls[0](decoder_blocks(tiny_model)[1][0], embedded)
    assert torch.equal(second.hidden[0], expected)


def test_the_walk_leaves_the_weights_and_no_hook_behind(tiny_model, tokens):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    for linears, runner in walk_blocks(tiny_model, tokens, batch_size=2):
        runner.collect({linear.module: Inputs() for linear in linears})
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in tiny_model.modules())


def test_gemmas_local_and_global_blocks_are_called_differently_and_it_matters(build_tiny, tokens):
    model = build_tiny("gemma3_text")
    first, calls = record_calls(model, tokens)
    block = decoder_blocks(model)[1][0]
    with torch.no_grad():
        local, again, wrong = calls[0](block, first), calls[1](block, first), calls[2](block, first)
    window = model.config.sliding_window
    assert tokens.shape[1] > window
    assert torch.equal(local, again)
    assert not torch.equal(local[:, window:], wrong[:, window:])


@pytest.mark.parametrize(("order", "word"), [((0, 1, 0), "blocks.0"), ((0,), "skips")])
def test_a_model_that_does_not_run_each_block_once_is_refused(refused, order, word):
    with refused("Looped", word):
        record_calls(Looped(order), torch.ones(1, 4, dtype=torch.long))
