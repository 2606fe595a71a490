"""Where a model's prunable matrices lie in its checkpoint: the rows of which tensor each of them is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from leap_repro.errors import UserError
from leap_repro.models.experts import ExpertLinear
from leap_repro.models.layout import as_in_checkpoint
from leap_repro.models.prunable import PrunableLinear, prunable_linears


@dataclass(frozen=True)
class Place:
    """A matrix [out, in] within a tensor [..., in] of the checkpoint, or [..., in, out] (`transposed`): `rows` [out]
    are its rows among all of the tensor's, taken with inputs last."""

    linear: PrunableLinear
    key: str
    rows: Tensor
    transposed: bool

    def is_whole(self, rows: int) -> bool:
        """Whether it is all of a tensor of so many rows, in their order."""
        return torch.equal(self.rows, torch.arange(rows))


def is_transposed(linear: PrunableLinear) -> bool:
    """Whether the parameter that holds the matrix has inputs before outputs."""
    return isinstance(linear.module, ExpertLinear) and bool(linear.module.experts.is_transposed)


def find_places(loaded: PreTrainedModel, keys: set[str]) -> list[Place]:
    """The place of every prunable matrix; `loaded` came from `load_headers` of a checkpoint with these keys.

    Every row is followed by a number, through whatever transformers does with tensors between checkpoint and model.
    UserError for a matrix whose rows lie in several tensors.
    """
    linears, numbers, count = prunable_linears(loaded), dict[str, Tensor](), 0
    for linear in linears:
        if linear.parameter not in numbers:
            numbers[linear.parameter] = _numbered(linear, count)
            count += numbers[linear.parameter].numel()
    found = as_in_checkpoint(loaded, numbers, keys)
    owner, position = torch.full((count,), -1), torch.full((count,), -1)
    for index, tags in enumerate(found.values()):
        owner[tags.flatten()], position[tags.flatten()] = index, torch.arange(tags.numel())
    return [_place(linear, numbers, [*found.items()], owner, position) for linear in linears]


def _numbered(linear: PrunableLinear, first: int) -> Tensor:
    """A number for each row of the parameter's matrices: its shape, with one input."""
    shape = list(whole_parameter(linear).shape)
    shape[-2 if is_transposed(linear) else -1] = 1
    rows = torch.Size(shape).numel()
    return torch.arange(first, first + rows).view(shape)


def _place(
    linear: PrunableLinear,
    numbers: dict[str, Tensor],
    found: list[tuple[str, Tensor]],
    owner: Tensor,
    position: Tensor,
) -> Place:
    own = view_of(linear, numbers[linear.parameter]).flatten()
    keys = owner[own].unique().tolist()
    if len(keys) != 1 or keys[0] < 0:
        raise UserError(f"{linear.name} is not within one tensor of the checkpoint, so it cannot run packed")
    key, tags = found[keys[0]]
    return Place(linear, key, position[own], is_transposed(linear) and tags.shape[-1] != 1)


def whole_parameter(linear: PrunableLinear) -> Tensor:
    """The parameter that holds it: the matrix itself, or those of all experts."""
    module = linear.module
    return getattr(module.experts, module.parameter) if isinstance(module, ExpertLinear) else linear.weight


def view_of(linear: PrunableLinear, parameter: Tensor) -> Tensor:
    """The matrix within a tensor of the parameter's shape."""
    return linear.module.view(parameter) if isinstance(linear.module, ExpertLinear) else parameter
