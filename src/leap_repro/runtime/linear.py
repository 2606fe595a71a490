"""The layers of a model that runs packed: a linear layer, and a mixture's experts, whose matrices hold no zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.experts import ExpertLinear, expert_output
from leap_repro.runtime.forms import form
from leap_repro.runtime.kernels import MOST_TOKENS, PackedMatrix, multiply_dense

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PackedLinear(nn.Module):
    """x W' + b with W [out, in] packed; W is no parameter, so nothing trains, converts or moves it."""

    def __init__(self, matrix: PackedMatrix, bias: Tensor | None) -> None:
        super().__init__()
        self.matrix, self.bias = matrix, bias
        self.multiply = matrix.prepared()
        self.out_features, self.in_features = matrix.shape

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in x's type; UserError if a gradient is asked for: there is none."""
        if x.requires_grad and torch.is_grad_enabled():
            raise UserError("a model that runs packed has no gradients: load it with run='dense' to train it")
        y = self.multiply(x)
        return y if self.bias is None else y.add_(self.bias)

    def extra_repr(self) -> str:
        """As nn.Linear's, with the share of the weights that are kept."""
        share = self.matrix.values.numel() / (self.in_features * self.out_features)
        return f"in_features={self.in_features}, out_features={self.out_features}, kept={share:.4f}"


class Head(nn.Linear):
    """A language-model head, which is not pruned: at each step of decoding it is read as a whole, so that it, too, is
    multiplied by the kernel for few tokens."""

    def forward(self, input: Tensor) -> Tensor:
        """nn.Linear's, to rounding."""
        if input.numel() > MOST_TOKENS * self.in_features or (input.requires_grad and torch.is_grad_enabled()):
            return super().forward(input)
        y = multiply_dense(self.weight, input)
        return y if self.bias is None else y.add_(self.bias)


class PackedExperts(nn.Module):
    """All experts of a block; each computes, through packed matrices, for the tokens that are routed to it.

    `experts` is the model's own module without its matrices: it says what an expert is, and holds the biases.
    """

    def __init__(self, experts: nn.Module, linears: Mapping[int, dict[str, nn.Module]]) -> None:
        super().__init__()
        self.experts = experts
        self.linears = nn.ModuleList(nn.ModuleDict(linears[expert]) for expert in sorted(linears))

    def forward(self, hidden_TD: Tensor, chosen_TK: Tensor, weights_TK: Tensor) -> Tensor:
        """The experts' sum for each token, [T, D]; an expert without a token costs nothing."""
        total_TD = torch.zeros_like(hidden_TD)
        for expert in chosen_TK.unique().tolist():
            tokens, places = torch.where(chosen_TK == expert)
            linears = cast(nn.ModuleDict, self.linears[expert])
            output = expert_output(self.experts, linears, hidden_TD[tokens])  # pyright: ignore[reportArgumentType]
            output = output * weights_TK[tokens, places, None]
            total_TD = total_TD.index_add(0, tokens, output.to(total_TD.dtype))
        return total_TD


def put_packed(model: nn.Module, modules: Mapping[str, nn.Module], matrices: Mapping[str, PackedMatrix]) -> None:
    """Put packed layers in the place of `modules`, {name of a matrix: what computes with it}; of a module of experts
    all matrices must be among them. Biases stay where they are."""
    experts: dict[str, dict[int, dict[str, nn.Module]]] = {}
    for name, module in modules.items():
        packed = PackedLinear(matrices[name], cast(Tensor | None, module.bias))
        if isinstance(module, ExpertLinear):
            linears = experts.setdefault(name.rsplit(".", 3)[0], {})
            linears.setdefault(module.expert, {})[module.part] = packed
        else:
            model.set_submodule(name.removesuffix(".weight"), packed)
    for name, linears in experts.items():
        own = model.get_submodule(name)
        for parameter in _matrices_of(own, modules):
            delattr(own, parameter)
        model.set_submodule(name, PackedExperts(own, linears))


def speed_up_head(model: PreTrainedModel) -> None:
    """Let the kernels, if there are any, multiply the model's head in the place of torch; its weight stays what it is,
    tied or not."""
    head = model.get_output_embeddings()
    if type(head) is nn.Linear and form() != "torch":
        head.__class__ = Head


def _matrices_of(experts: nn.Module, modules: Mapping[str, nn.Module]) -> set[str]:
    """The names of the experts' parameters that hold matrices."""
    own = [m for m in modules.values() if isinstance(m, ExpertLinear) and m.experts is experts]
    return {module.parameter for module in own}
