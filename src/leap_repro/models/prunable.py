"""Which matrices of a model are pruned: every nn.Linear inside its decoder blocks, found without naming architectures.

The decoder blocks are the module list that holds the most nn.Linear weights; embeddings and the language-model head lie
outside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from leap_repro.errors import UserError


@dataclass(frozen=True)
class PrunableLinear:
    """One prunable matrix: its parameter name in the state dict, its block's index and the module."""

    name: str
    block: int
    module: nn.Linear

    @property
    def weight(self) -> Tensor:
        """[out_features, in_features]"""
        return self.module.weight


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The decoder's module list and its dotted name; UserError if no list of blocks holds an nn.Linear."""
    best_name, best_list, most = "", None, 0
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList):
            weights = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
            if weights > most:
                best_name, best_list, most = name, module, weights
    if best_list is None:
        raise UserError(
            f"{type(model).__name__} cannot be pruned: its decoder blocks hold no nn.Linear "
            "(only nn.Linear layers inside a list of decoder blocks are prunable)"
        )
    return best_name, best_list


def prunable_linears(model: nn.Module) -> list[PrunableLinear]:
    """Every nn.Linear inside the decoder blocks, in module order; never embeddings or the language-model head."""
    prefix, blocks = decoder_blocks(model)
    return [
        PrunableLinear(f"{prefix}.{index}.{name}.weight", index, module)
        for index, block in enumerate(blocks)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    ]
