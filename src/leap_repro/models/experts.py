"""Mixtures of experts: the matrices of every expert, which transformers keeps together in one parameter [E, ...].

Each matrix is a linear layer of its own here, a view of that parameter, so that pruners treat an expert's gate, up and
down projection as they treat any other matrix, and what they write lands in the model. What a module of experts means
(`is_transposed`, `is_concatenated`, `has_bias`, `has_gate`) it says itself: transformers' contract for every way to run
experts, of which `unfused` is one more. Shapes: E experts, I inner and D hidden features; a part is [out, in].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

CONTRACT = ("is_transposed", "is_concatenated", "has_bias", "has_gate", "_apply_gate")
GATE, UP, DOWN = "gate_proj", "up_proj", "down_proj"


def is_experts(module: nn.Module) -> bool:
    """Whether the module keeps the matrices of all its experts in parameters [E, ...] that we can take apart."""
    if not all(hasattr(module, name) for name in CONTRACT):
        return False
    stacks = [getattr(module, name, None) for name in (_first(module), DOWN)]
    sizes = [len(stack) for stack in stacks if isinstance(stack, nn.Parameter) and stack.dim() == 3]
    return len(sizes) == len(stacks) and sizes[0] == sizes[1]


def _first(experts: nn.Module) -> str:
    """The parameter that an expert's input meets first: gate and up in one, or up alone."""
    return "gate_up_proj" if experts.has_gate else UP


class ExpertLinear(nn.Module):
    """One matrix of one expert, computing x W' + b; W and b are views of the experts' parameters, whatever those are at
    the moment, so a block that is read anew is seen."""

    def __init__(self, experts: nn.Module, expert: int, part: str) -> None:
        super().__init__()
        self.expert, self.part = expert, part
        self._owner = (experts,)  # in a tuple, so that the experts are no submodule of their own view
        self.out_features, self.in_features = self.weight.shape

    @property
    def experts(self) -> nn.Module:
        """The module whose parameters these are."""
        return self._owner[0]

    @property
    def parameter(self) -> str:
        """Which of the experts' parameters holds this matrix."""
        return DOWN if self.part == DOWN else _first(self.experts)

    def view(self, parameter: Tensor) -> Tensor:
        """This matrix [out, in] within a tensor of the parameter's shape."""
        matrix = parameter[self.expert]
        return self._rows(matrix.T if self.experts.is_transposed else matrix)

    def _rows(self, stacked: Tensor) -> Tensor:
        """The rows of gate or of up where both are in one: one above the other, or in turn."""
        if self.parameter != "gate_up_proj":
            return stacked
        if not self.experts.is_concatenated:
            return stacked[0::2] if self.part == GATE else stacked[1::2]
        inner = len(stacked) // 2
        return stacked[:inner] if self.part == GATE else stacked[inner:]

    @property
    def weight(self) -> Tensor:
        return self.view(getattr(self.experts, self.parameter))

    @property
    def bias(self) -> Tensor | None:
        if not self.experts.has_bias:
            return None
        return self._rows(getattr(self.experts, f"{self.parameter}_bias")[self.expert])

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


def expert_linears(experts: nn.Module) -> list[tuple[str, ExpertLinear]]:
    """(name below the module, matrix) of every expert: `3.gate_proj`, `3.up_proj`, `3.down_proj`."""
    parts = (GATE, UP, DOWN) if experts.has_gate else (UP, DOWN)
    count = len(getattr(experts, DOWN))
    return [(f"{index}.{part}", ExpertLinear(experts, index, part)) for index in range(count) for part in parts]


@contextmanager
def unfused(modules: Iterable[nn.Module], all_tokens: bool = False) -> Iterator[None]:
    """Within it, every module of experts that the `ExpertLinear`s among `modules` belong to computes through them.

    Each expert is called once for every forward pass, be it with no token. `all_tokens`: it is called with all tokens,
    so that who watches its inputs sees as many as for a dense layer; the result is that of the tokens routed to it.
    """
    owners: dict[nn.Module, dict[int, dict[str, nn.Module]]] = {}
    for module in modules:
        if isinstance(module, ExpertLinear):
            owners.setdefault(module.experts, {}).setdefault(module.expert, {})[module.part] = module
    for experts, linears in owners.items():
        experts.forward = partial(_forward, experts, linears, all_tokens)
    try:
        yield
    finally:
        for experts in owners:
            del experts.forward


def _forward(
    experts: nn.Module,
    linears: dict[int, dict[str, nn.Module]],
    all_tokens: bool,
    hidden_TD: Tensor,
    chosen_TK: Tensor,
    weights_TK: Tensor,
) -> Tensor:
    """The experts' sum for each token, [T, D]: expert by expert, so that no token is added to twice at once."""
    total = torch.zeros_like(hidden_TD)
    for index in range(len(getattr(experts, DOWN))):
        tokens, places = torch.where(chosen_TK == index)
        output = expert_output(experts, linears[index], hidden_TD if all_tokens else hidden_TD[tokens])
        output = (output[tokens] if all_tokens else output) * weights_TK[tokens, places, None]
        total = total.index_add(0, tokens, output.to(total.dtype))
    return total


def expert_output(experts: Any, linears: Mapping[str, nn.Module], x: Tensor) -> Tensor:
    """What one expert makes of its tokens x [T, D]; `linears` are its layers by the names of their parts."""
    up = linears[UP](x)
    if not experts.has_gate:
        return linears[DOWN](experts.act_fn(up))
    gate = linears[GATE](x)
    both = torch.cat([gate, up], -1) if experts.is_concatenated else torch.stack([gate, up], -1).flatten(-2)
    output = linears[DOWN](experts._apply_gate(both))
    return experts.post_expert_norm(output) if getattr(experts, "has_post_expert_norm", False) else output
