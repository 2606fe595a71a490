"""Walk a model block by block: the one way in which every layer-wise method sees its calibration data.

A block's keyword arguments (masks, position embeddings, whatever the family passes) are recorded from a forward pass
and replayed, so a family that gives different arguments to different blocks (Gemma 3's local and global attention) is
walked correctly. While they are recorded only the first block computes; the others hand their input on, so that their
weights may still lie on disk (`stream.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.experts import unfused
from leap_repro.models.prunable import PrunableLinear, decoder_blocks, linears_by_block
from leap_repro.models.stream import Residency, always_resident


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

    Only the first block needs its weights: what it returns shows in which form (tensor or tuple) the model wants a
    block's output, and every later block returns its own input in that form.
    Raises UserError if a block is not called exactly once with its hidden states first.
    """
    name, blocks = decoder_blocks(model)
    recorder = _Recorder(f"{type(model).__name__} cannot be walked: it", name)
    try:
        for index, block in enumerate(blocks):
            block.forward = partial(recorder, index, block.forward)
        getattr(model, "base_model", model)(tokens_BT, use_cache=False)
    finally:
        for block in blocks:
            vars(block).pop("forward", None)
    if len(recorder.calls) != len(blocks):
        raise UserError(f"{recorder.complaint} skips some blocks of {name}")
    return recorder.first, [recorder.calls[index] for index in range(len(blocks))]


class _Recorder:
    """Stands in for the forward of every block during one pass and keeps how it was called."""

    def __init__(self, complaint: str, name: str) -> None:
        self.complaint, self.name = complaint, name
        self.calls: dict[int, BlockCall] = {}
        self.first: Tensor
        self.form: Any

    def __call__(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs.pop("hidden_states", None)
        if index in self.calls or not isinstance(hidden, Tensor):
            raise UserError(f"{self.complaint} does not run {self.name}.{index} exactly once")
        self.calls[index] = BlockCall(args[1:], kwargs)
        if index == 0:
            self.first = hidden.clone()
            self.form = forward(hidden, *args[1:], **kwargs)
        return (hidden, *self.form[1:]) if isinstance(self.form, tuple) else hidden


@torch.no_grad()
def walk_blocks(
    model: nn.Module, tokens_NT: Tensor, batch_size: int, residency: Residency = always_resident
) -> Iterator[tuple[list[PrunableLinear], BlockRunner]]:
    """Yield each block's prunable layers and a runner over the calibration set, in order.

    The consumer collects statistics through `runner.collect`, changes the block's weights, and goes on: the inputs of
    the next block then come from the block as it was left. `tokens_NT` is [sequences, length]. One set of hidden
    states is kept, in the model's dtype: a batch's output takes the place of its input.
    """
    _, blocks = decoder_blocks(model)
    device = next(parameter.device for parameter in model.parameters() if not parameter.is_meta)
    with residency(0):
        recorded = [record_calls(model, batch.to(device)) for batch in tokens_NT.split(batch_size)]
    hidden = [first for first, _ in recorded]
    calls_of = [[calls[index] for _, calls in recorded] for index in range(len(blocks))]
    del recorded
    linears = linears_by_block(model)
    for index, (block, calls) in enumerate(zip(blocks, calls_of, strict=True)):
        with residency(index):
            yield linears.get(index, []), BlockRunner(block, calls, hidden)
            if index + 1 < len(blocks):
                for batch, call in enumerate(calls):
                    hidden[batch] = call(block, hidden[batch])


@dataclass
class BlockRunner:
    """One block with the calls and inputs of every calibration batch."""

    block: nn.Module
    calls: list[BlockCall]
    hidden: list[Tensor]

    @torch.no_grad()
    def collect(self, observers: Mapping[Any, Any], all_tokens: bool = False) -> None:
        """Run the block over all batches in order; each observer sees its layer's inputs as [tokens, in_features].

        An expert's layers see the tokens that are routed to it, or `all_tokens`.
        """
        handles = [
            linear.register_forward_pre_hook(
                lambda module, args, observe=observer: observe.add(args[0].reshape(-1, args[0].shape[-1]))
            )
            for linear, observer in observers.items()
        ]
        try:
            with unfused(observers, all_tokens):
                for call, batch in zip(self.calls, self.hidden, strict=True):
                    call(self.block, batch)
        finally:
            for handle in handles:
                handle.remove()
