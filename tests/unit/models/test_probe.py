"""Prunable is what a pass calls and what computes x W' + b; everything else is found, counted and never touched."""

import pytest
import torch
from torch import nn

from leap_repro.models.prunable import decoder_blocks, prunable_linears, structure
from leap_repro.models.shares import refuse_dense, shares_of


class Router(nn.Linear):
    """Returns what it chose, as routers do."""

    def forward(self, x):
        return super().forward(x).topk(1)


class Reversed(nn.Linear):
    """A linear layer that computes itself in another way."""

    def forward(self, x):
        return x @ self.weight.T + self.bias


class Halved(nn.Linear):
    """Computes something else of the same shape."""

    def forward(self, x):
        return super().forward(x) / 2


class Block(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.up, self.down = Reversed(width, 64), nn.Linear(64, width)
        self.router, self.read, self.idle = Router(width, 2), nn.Linear(width, width), nn.Linear(width, width)
        self.halved = Halved(width, width)

    def forward(self, x):
        self.router(x)
        return self.halved(self.down(self.up(x).relu())) + x @ self.read.weight


class Model(nn.Module):
    """Looks at values on its way, and has a tower beside the text that is larger than its decoder."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(32, 16)
        self.tower = nn.ModuleList(nn.Linear(256, 256) for _ in range(4))
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(16, 32)
        self.offset = torch.ones(16)

    def forward(self, tokens, use_cache=False):
        hidden = self.embedding(tokens) + self.offset
        if (tokens == 0).all() or tokens.sum().item() > 3:
            hidden = hidden * 2
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


def test_only_what_is_called_and_linear_is_prunable():
    model = Model()
    names = [linear.name for linear in prunable_linears(model)]
    assert names == [f"blocks.{block}.{layer}.weight" for block in range(2) for layer in ("up", "down")]
    assert decoder_blocks(model)[0] == "blocks"


def test_the_model_is_left_as_it_was():
    model = Model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prunable_linears(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model(torch.ones(1, 3, dtype=torch.long)).device.type == "cpu"


def test_what_stays_dense_is_refused_by_name_unless_it_is_allowed(refused):
    model = Model()
    with refused("block 0 of Model", "blocks.0.read.weight", "allow_dense_share", "0.29"):
        refuse_dense(model)
    refuse_dense(model, allowed=0.29)
    shares = shares_of(model)
    assert shares.prunable == 2 * 2 * 16 * 64
    assert shares.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shares.block_parameters == sum(parameter.numel() for parameter in model.blocks.parameters())


def test_layers_that_share_a_weight_are_refused(refused):
    model = Model()
    model.blocks[1].down.weight = model.blocks[0].down.weight
    with refused("blocks.0.down.weight", "blocks.1.down.weight", "are the same weight"):
        structure(model)


def test_a_layer_that_a_pass_uses_twice_is_refused(refused):
    class Looped(Model):
        def forward(self, tokens, use_cache=False):
            hidden = self.embedding(tokens)
            for block in [*self.blocks, self.blocks[0]]:
                hidden = block(hidden)
            return self.head(hidden)

    with refused("Looped cannot be pruned", "blocks.0.up.weight 2 times"):
        structure(Looped())


def test_a_pass_that_cannot_be_run_is_said(refused):
    model = Model()
    model.forward = lambda pixels: pixels.numpy()
    with refused("Model cannot be pruned", "a pass over tokens alone"):
        structure(model)


@pytest.mark.parametrize("wanted", [0.1, 0.3])
def test_blocks_in_another_list_count_against_the_decoders(refused, wanted):
    class Twice(Model):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(4))
            self.more = nn.ModuleList([nn.Linear(16, 16, bias=False)])

        def forward(self, tokens, use_cache=False):
            hidden = self.embedding(tokens)
            for layer in [*self.blocks, *self.more]:
                hidden = layer(hidden)
            return hidden

    model = Twice()
    if wanted > 0.25:
        refuse_dense(model, wanted)
        return
    with refused("beside blocks", "more.0.weight", "25 %"):
        refuse_dense(model, wanted)
