"""Statistics of one matrix's inputs, accumulated in float32 in the order of the batches.

Shapes: X is [tokens, in_features]; the Gram matrix is G = X'X, [in_features, in_features].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from leap_repro.errors import UserError


@dataclass
class InputStatistics:
    """The Gram matrix of a matrix's inputs, or only its diagonal, and each feature's sum if means are needed.

    Attributes:
        in_features: The number of input features.
        device: The device of the accumulated tensors.
        needs_gram: Whether to accumulate G, instead of its diagonal.
        needs_sums: Whether to accumulate each feature's sum.
        tokens: The number of tokens so far.
        total: G, or its diagonal [in_features], float32.
        sums: The sum of each feature [in_features], float32.
    """

    in_features: int
    device: torch.device
    needs_gram: bool
    needs_sums: bool = False
    tokens: int = 0
    total: Tensor = field(init=False)
    sums: Tensor = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.in_features, self.in_features) if self.needs_gram else (self.in_features,)
        self.total = torch.zeros(shape, dtype=torch.float32, device=self.device)
        if self.needs_sums:
            self.sums = torch.zeros(self.in_features, dtype=torch.float32, device=self.device)

    def add(self, x_TI: Tensor) -> None:
        """Add a batch of inputs [tokens, in_features]."""
        x_TI = x_TI.float()
        self.tokens += x_TI.shape[0]
        if self.needs_gram:
            self.total.addmm_(x_TI.T, x_TI)
        else:
            self.total += x_TI.square().sum(dim=0)
        if self.needs_sums:
            self.sums += x_TI.sum(dim=0)

    @property
    def gram(self) -> Tensor:
        """G = X'X, float32 [in, in]; UserError unless the method declares statistics="gram"."""
        if not self.needs_gram:
            raise UserError('the rule reads the Gram matrix: its METHOD must have statistics="gram"')
        return self.total

    @property
    def column_norms(self) -> Tensor:
        """The Euclidean norm of each input feature over all tokens, float32 [in]."""
        return self._squares.sqrt()

    @property
    def means(self) -> Tensor:
        """The mean of each input feature over all tokens, float64 [in].

        UserError unless the method declares statistics="moments".
        """
        if not self.needs_sums:
            raise UserError('the rule reads means of its inputs: its METHOD must have statistics="moments"')
        return self.sums.double() / max(self.tokens, 1)

    @property
    def variances(self) -> Tensor:
        """The variance of each input feature over all tokens, float64 [in].

        A constant feature has the part of its mean square that float32 may have lost, which is 0 for a feature that is
        always 0. UserError unless the method declares statistics="moments".
        """
        squares = self._squares.double() / max(self.tokens, 1)
        return torch.maximum(squares - self.means.square(), torch.finfo(torch.float32).eps * squares)

    @property
    def _squares(self) -> Tensor:
        return self.total.diagonal() if self.needs_gram else self.total

    @property
    def hessian(self) -> Tensor:
        """H = (2 / tokens) G of the layer's reconstruction error, a new float32 tensor [in, in].

        UserError unless the method declares statistics="gram".
        """
        return self.gram * (2.0 / max(self.tokens, 1))


def relative_error(weight: Tensor, pruned: Tensor, gram: Tensor) -> float:
    """The relative output error ||X (W - P)'||^2 / ||X W'||^2, computed in float64; 0 if the output is 0."""
    gram = gram.double()
    weight, change = weight.double(), weight.double() - pruned.double()
    reference = ((weight @ gram) * weight).sum()
    error = ((change @ gram) * change).sum()
    return float(error / reference) if reference > 0 else 0.0
