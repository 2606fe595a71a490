"""Which matrices of a model are pruned: every one in its decoder blocks that a pass over tokens multiplies its inputs
with, found without naming architectures.

The decoder blocks are the module list whose called layers hold the most weights; embeddings and the language-model head
lie outside it. Within them a matrix is prunable if it belongs to an expert of a mixture, or to a linear layer that is
called and computes x W' + b (`probe.py`), and is no router: which expert sees a token is not the pruner's to change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.checkpoint import ROUTERS
from leap_repro.models.experts import ExpertLinear, expert_linears, is_experts
from leap_repro.models.probe import called_modules, computes_linear


@dataclass(frozen=True)
class PrunableLinear:
    """One prunable matrix: its name with `.weight`, its block's index and the module that computes with it."""

    name: str
    block: int
    module: nn.Linear | ExpertLinear

    @property
    def weight(self) -> Tensor:
        """[out_features, in_features]"""
        return self.module.weight

    @property
    def is_expert(self) -> bool:
        """Whether it belongs to an expert of a mixture."""
        return isinstance(self.module, ExpertLinear)

    @property
    def parameter(self) -> str:
        """The name of the model's parameter that holds the matrix: its own, or that of all experts."""
        return f"{self.name.rsplit('.', 3)[0]}.{self.module.parameter}" if self.is_expert else self.name


@dataclass(frozen=True)
class Structure:
    """A model taken apart: the decoder's module list by name, its prunable matrices in module order, the names of the
    blocks' routers, and of linear layers in other module lists that the text passes through."""

    blocks_name: str
    linears: tuple[tuple[str, int, nn.Linear | ExpertLinear], ...]
    routers: frozenset[str]
    elsewhere: tuple[str, ...]


FOUND = "prunable_structure"
"""The attribute by which a model keeps its structure."""


def structure(model: nn.Module) -> Structure:
    """Found by one probe, when it is asked for first, and kept by the model itself: it goes where the model goes.

    UserError if nothing in it can be pruned, or if a weight is shared by two prunable layers or used twice by a pass.
    """
    if FOUND not in vars(model):
        setattr(model, FOUND, _take_apart(model))
    return vars(model)[FOUND]


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The decoder's module list and its dotted name; UserError as `structure`."""
    name = structure(model).blocks_name
    return name, cast(nn.ModuleList, model.get_submodule(name))


def prunable_linears(model: nn.Module) -> list[PrunableLinear]:
    """Every prunable matrix of the decoder blocks, in module order; never embeddings, head or routers.

    Raises UserError as `structure`.
    """
    return [PrunableLinear(*found) for found in structure(model).linears]


def linears_by_block(model: nn.Module) -> dict[int, list[PrunableLinear]]:
    """`prunable_linears` by the index of their block, in module order; blocks without one are left out."""
    found: dict[int, list[PrunableLinear]] = {}
    for linear in prunable_linears(model):
        found.setdefault(linear.block, []).append(linear)
    return found


def _take_apart(model: nn.Module) -> Structure:
    modules, uses, tried = dict(model.named_modules()), called_modules(model), {}
    called = {name for name in uses if is_experts(modules[name]) or computes_linear(modules[name], tried)}
    prefix = _decoder(modules, called)
    if prefix is None:
        raise UserError(
            f"{type(model).__name__} cannot be pruned: its decoder blocks have no nn.Linear that a pass calls, and no "
            "experts (only those inside a list of decoder blocks are prunable)"
        )
    routers = frozenset(name for name in modules if name.startswith(f"{prefix}.") and _is_router(name, modules))
    found = tuple(
        (f"{name}.weight", index, module)
        for index, block in enumerate(cast(nn.ModuleList, modules[prefix]))
        for name, module in _matrices(f"{prefix}.{index}", block, called - routers)
    )
    _refuse_shared(model, found)
    _refuse_reused(model, found, uses)
    others = tuple(sorted(name for name in called if not name.startswith(f"{prefix}.") and _in_list(name, modules)))
    return Structure(prefix, found, routers, others)


def _decoder(modules: dict[str, nn.Module], called: set[str]) -> str | None:
    """The module list whose called layers hold the most weights; None if no list has any."""
    lists = [name for name, module in modules.items() if isinstance(module, nn.ModuleList)]
    sizes = {name: _called_weights(name, modules, called) for name in lists}
    best = max(sizes, key=sizes.__getitem__, default=None)
    return best if best is not None and sizes[best] else None


def _called_weights(prefix: str, modules: dict[str, nn.Module], called: set[str]) -> int:
    """The weights of a list's called layers."""
    inside = [modules[name] for name in called if name.startswith(f"{prefix}.")]
    return sum(p.numel() for module in inside for p in module.parameters(recurse=False) if p.dim() > 1)


def _matrices(prefix: str, block: nn.Module, called: set[str]) -> Iterator[tuple[str, nn.Linear | ExpertLinear]]:
    for below, module in block.named_modules(prefix=prefix):
        if below in called and is_experts(module):
            yield from ((f"{below}.{name}", matrix) for name, matrix in expert_linears(module))
        elif below in called:
            yield below, cast(nn.Linear, module)


def _is_router(name: str, modules: dict[str, nn.Module]) -> bool:
    """Whether the module lies with experts and bears a router's name, or stands beside them with an output for each."""
    parts = name.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        count = _experts_in(modules[".".join(parts[:depth])])
        if count and parts[depth] != "experts":
            outputs = getattr(modules[name], "out_features", 0) if depth == len(parts) - 1 else 0
            return bool(ROUTERS & set(parts[depth:])) or outputs in (1, count)
    return False


def _experts_in(parent: nn.Module) -> int:
    """How many experts a module holds directly; 0 if it is no mixture."""
    for name, child in parent.named_children():
        if is_experts(child):
            return len(cast(Tensor, child.down_proj))
        if name == "experts" and isinstance(child, nn.ModuleList):
            return len(child)
    return 0


def _in_list(name: str, modules: dict[str, nn.Module]) -> bool:
    parts = name.split(".")
    return any(isinstance(modules[".".join(parts[:depth])], nn.ModuleList) for depth in range(1, len(parts)))


def _refuse_shared(model: nn.Module, found: tuple[tuple[str, int, nn.Linear | ExpertLinear], ...]) -> None:
    """Pruning one of two layers with one weight would change the other, and count it twice."""
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), name)
    for name, _, module in found:
        first = owners[id(module.weight)] if isinstance(module, nn.Linear) else name
        if first != name:
            raise UserError(f"{type(model).__name__} cannot be pruned: {first} and {name} are the same weight")


def _refuse_reused(
    model: nn.Module, found: tuple[tuple[str, int, nn.Linear | ExpertLinear], ...], uses: Counter[str]
) -> None:
    """A mask is made, and a gradient summed, for one use of its weight in a pass."""
    for linear in (PrunableLinear(*one) for one in found):
        module = linear.name.rsplit(".", 3)[0] if linear.is_expert else linear.name.removesuffix(".weight")
        if uses[module] > 1:
            raise UserError(
                f"{type(model).__name__} cannot be pruned: a pass uses {linear.name} {uses[module]} times, not once"
            )
