"""What a cell makes of a model's decoder blocks, in the names and the layout of the model's checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedModel

from leap_repro.export.places import find_places, view_of, whole_parameter
from leap_repro.models.layout import as_in_checkpoint
from leap_repro.models.prunable import PrunableLinear, linears_by_block
from leap_repro.sparsity.masks import CellMasks
from leap_repro.store.tensor_files import TensorFiles


@dataclass(frozen=True)
class PrunedBlocks:
    """`model` is on the meta device, loaded from the checkpoint's headers; `keys` are the checkpoint's."""

    model: PreTrainedModel
    keys: set[str]
    masks: CellMasks
    values: TensorFiles

    @cached_property
    def linears(self) -> dict[int, list[PrunableLinear]]:
        """The prunable matrices by block."""
        return linears_by_block(self.model)

    @cached_property
    def places(self) -> dict[str, int]:
        """{key in the checkpoint: its block} of every tensor that has pruned matrices in it."""
        found = {}
        for block, linears in self.linears.items():
            named = {linear.parameter: whole_parameter(linear) for linear in linears}
            found |= dict.fromkeys(as_in_checkpoint(self.model, named, self.keys), block)
        return found

    @cached_property
    def transposed(self) -> set[str]:
        """The keys of pruned tensors that have inputs before outputs."""
        return {place.key for place in find_places(self.model, self.keys) if place.transposed}

    def changes(self, block: int) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """({key: mask}, {key: values}, {key: where values are new ones}) of a block; the latter two only for tensors of
        which the method moved something. Of a mixture's experts it may have moved some."""
        found: tuple[dict[str, Tensor], ...] = ({}, {}, {})
        masks, values, moved = found
        for linear in self.linears[block]:
            name, shape = linear.parameter, whole_parameter(linear).shape
            mask = self.masks[linear.name]
            view_of(linear, masks.setdefault(name, torch.ones(shape, dtype=torch.bool))).copy_(mask)
            if linear.name in self.values:
                kept = self.values[linear.name]
                matrix = torch.zeros(mask.shape, dtype=kept.dtype).masked_scatter_(mask, kept)
                view_of(linear, values.setdefault(name, torch.zeros(shape, dtype=kept.dtype))).copy_(matrix)
                view_of(linear, moved.setdefault(name, torch.zeros(shape, dtype=torch.bool))).copy_(mask)
        masks, values, moved = (as_in_checkpoint(self.model, each, self.keys) for each in found)
        return masks, values, moved
