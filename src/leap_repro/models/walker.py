"""Walk a model block by block: the one way in which every layer-wise method sees its calibration data.

A block's keyword arguments (masks, position embeddings, whatever the family passes) are recorded from a real forward
pass and replayed, so a family that gives different arguments to different blocks (Gemma 3's local and global
attention) is walked correctly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.prunable import PrunableLinear, decoder_blocks, prunable_linears


@dataclass
class BlockCall:
    """How the model calls one block: everything but the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, block: nn.Module, hidden_BTD: Tensor) -> Tensor:
        output = block(hidden_BTD, *self.args, **self.kwargs)
        return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def record_calls(model: nn.Module, tokens_BT: Tensor) -> tuple[Tensor, list[BlockCall]]:
    """The first block's input [B, T, D] and how each block is called, from one forward pass over `tokens_BT`.

    Raises UserError if a block is not called exactly once with its hidden states first.
    """
    name, blocks = decoder_blocks(model)
    first: list[Tensor] = []
    calls: dict[int, BlockCall] = {}

    def recorder(index: int):
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            kwargs = dict(kwargs)
            hidden = args[0] if args else kwargs.pop("hidden_states", None)
            if index in calls or not isinstance(hidden, Tensor):
                raise UserError(f"{type(model).__name__} cannot be walked: it does not run {name}.{index} just once")
            calls[index] = BlockCall(args[1:], kwargs)
            if index == 0:
                first.append(hidden.clone())

        return hook

    handles = [block.register_forward_pre_hook(recorder(index), with_kwargs=True) for index, block in enumerate(blocks)]
    try:
        model(tokens_BT, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if len(calls) != len(blocks):
        raise UserError(f"{type(model).__name__} cannot be walked: it skips some of the blocks in {name}")
    return first[0], [calls[index] for index in range(len(blocks))]


@torch.no_grad()
def walk_blocks(
    model: nn.Module, tokens_NT: Tensor, batch_size: int
) -> Iterator[tuple[list[PrunableLinear], BlockRunner]]:
    """Yield each block's prunable layers and a runner over the calibration set, in order.

    The consumer collects statistics through `runner.collect`, changes the block's weights, and goes on: the inputs of
    the next block then come from the block as it was left. `tokens_NT` is [sequences, length].
    """
    _, blocks = decoder_blocks(model)
    device = next(model.parameters()).device
    recorded = [record_calls(model, batch.to(device)) for batch in tokens_NT.split(batch_size)]
    hidden = [first for first, _ in recorded]
    linears = prunable_linears(model)
    for index, block in enumerate(blocks):
        calls = [batch_calls[index] for _, batch_calls in recorded]
        yield [linear for linear in linears if linear.block == index], BlockRunner(block, calls, hidden)
        hidden = [call(block, batch) for call, batch in zip(calls, hidden, strict=True)]


@dataclass
class BlockRunner:
    """One block with the calls and inputs of every calibration batch."""

    block: nn.Module
    calls: list[BlockCall]
    hidden: list[Tensor]

    @torch.no_grad()
    def collect(self, observers: dict[nn.Linear, Any]) -> None:
        """Run the block over all batches in order; each observer sees its layer's inputs as [tokens, in_features]."""
        handles = [
            linear.register_forward_pre_hook(
                lambda module, args, observe=observer: observe.add(args[0].reshape(-1, args[0].shape[-1]))
            )
            for linear, observer in observers.items()
        ]
        try:
            for call, batch in zip(self.calls, self.hidden, strict=True):
                call(self.block, batch)
        finally:
            for handle in handles:
                handle.remove()
