"""How much of a model is pruned: of its decoder blocks, and of all it holds; and whether that is nearly all of a block.

A mask of 60 % says little if most of a block's weights are in parameters that no mask touches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from leap_repro.errors import UserError
from leap_repro.models.prunable import Structure, decoder_blocks, prunable_linears, structure

ALLOWED = 0.01
"""The largest share of a block's weights that may lie in parameters which are not pruned, if nobody allows more."""
SHOWN = 3


@dataclass(frozen=True)
class Shares:
    """Numbers of weights: prunable, in the decoder blocks (norms and biases too), and in the whole model."""

    prunable: int
    block_parameters: int
    parameters: int


def shares_of(model: nn.Module) -> Shares:
    """Counted on a model that may be on the meta device; a parameter that two modules share counts once."""
    return Shares(
        prunable=sum(linear.weight.numel() for linear in prunable_linears(model)),
        block_parameters=sum(p.numel() for p in decoder_blocks(model)[1].parameters()),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def refuse_dense(model: nn.Module, allowed: float = ALLOWED) -> None:
    """UserError, naming parameters, if more than a share `allowed` of a block's weights would stay dense.

    Weights are parameters of two or more dimensions: scales of norms and biases are not counted, nor routers, which are
    never pruned. Blocks in other lists that the text passes through count against the decoder's own.
    """
    found = structure(model)
    pruned = {linear.parameter for linear in prunable_linears(model)}
    for index, block in enumerate(decoder_blocks(model)[1]):
        weights = {
            f"{found.blocks_name}.{index}.{name}": p.numel()
            for name, p in block.named_parameters()
            if _is_weight(name, p)
        }
        dense = {name: size for name, size in weights.items() if name not in pruned and not _in_router(name, found)}
        _refuse(f"block {index} of {type(model).__name__}", dense, sum(weights.values()), allowed)
    elsewhere = {
        f"{name}.{part}": p.numel()
        for name in found.elsewhere
        for part, p in model.get_submodule(name).named_parameters()
        if _is_weight(part, p)
    }
    _refuse(f"beside {found.blocks_name} the {type(model).__name__}", elsewhere, shares_of(model).prunable, allowed)


def _is_weight(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() > 1 and not name.endswith("bias")


def _in_router(name: str, found: Structure) -> bool:
    return any(name.startswith(f"{router}.") for router in found.routers)


def _refuse(where: str, dense: dict[str, int], weights: int, allowed: float) -> None:
    share = sum(dense.values()) / max(weights, 1)
    if share > allowed:
        largest = sorted(dense, key=lambda name: -dense[name])[:SHOWN]
        more = math.ceil(100 * share) / 100
        raise UserError(
            f"{where} has {100 * share:.3g} % of its weights in parameters that are not pruned ({', '.join(largest)}); "
            f"at most {100 * allowed:g} % are allowed: to accept this model, set allow_dense_share to {more} in its "
            "source"
        )
