"""A transformers model that runs packed: it keeps its class, and refuses what it cannot do in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.runtime.linear import PackedLinear, speed_up_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DENSE = "load_pruned(..., run='dense') gives a model that can"


class RunsPacked:
    """What a packed model's class has before the family's own."""

    def train(self, mode: bool = True) -> Self:
        """`eval()` changes nothing; UserError for training."""
        if mode:
            raise UserError(f"a model that runs packed cannot be trained: {DENSE}")
        return super().train(False)  # pyright: ignore[reportAttributeAccessIssue]  # of the class behind it

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """UserError: its matrices are no parameters."""
        raise UserError(
            f"a model that runs packed cannot be saved; its export is the folder that it was loaded from: {DENSE}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `.to`, `.cuda`, `.half` and their like come to: UserError unless the model is there and in that type
        already; then nothing is done, and buffers keep their own types."""
        own = torch.empty(0, dtype=self.dtype)  # pyright: ignore[reportAttributeAccessIssue]
        try:
            asked = fn(own)
        except (RuntimeError, AssertionError):  # torch has no such device here
            asked = None
        if asked is None or (asked.dtype, asked.device) != (own.dtype, own.device):
            raise UserError(f"a model that runs packed stays on the CPU and in its type, {own.dtype}: {DENSE}")
        return self

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the parameters and buffers, and of the packed matrices."""
        rest = super().get_memory_footprint(return_buffers)  # pyright: ignore[reportAttributeAccessIssue]
        return rest + packed_bytes(self)


def runs_packed(model: Any) -> bool:
    """Whether it is such a model."""
    return isinstance(model, RunsPacked)


def as_packed(model: PreTrainedModel) -> PreTrainedModel:
    """The model, whose matrices are packed already, with the refusals of one; its class keeps its name."""
    speed_up_head(model)
    own = type(model)
    model.__class__ = type(own.__name__, (RunsPacked, own), {"__module__": own.__module__, "__doc__": own.__doc__})
    return model.requires_grad_(False)


def packed_bytes(model: Any) -> int:
    """Bytes of a model's packed matrices."""
    return sum(module.matrix.nbytes for module in model.modules() if isinstance(module, PackedLinear))
