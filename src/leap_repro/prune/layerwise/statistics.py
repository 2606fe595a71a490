"""Input statistics of one linear layer, accumulated in float32 in the order in which the batches come.

Shapes: X is [tokens, in_features]; gram is G = X'X.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from leap_repro.errors import UserError


@dataclass
class InputStatistics:
    """The Gram matrix G = X'X, or only its diagonal (the squared column norms) where a method needs no more; and each
    feature's sum, where one needs means."""

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
        """Add one batch of inputs."""
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
        """G = X'X, [in, in] float32; UserError if the method's declaration did not ask for it."""
        if not self.needs_gram:
            raise UserError('the rule reads the Gram matrix: its METHOD must have statistics="gram"')
        return self.total

    @property
    def column_norms(self) -> Tensor:
        """The Euclidean norm of each input feature over all tokens, [in] float32."""
        return self._squares.sqrt()

    @property
    def means(self) -> Tensor:
        """The mean of each input feature over all tokens, [in] float64; UserError as for the Gram matrix."""
        if not self.needs_sums:
            raise UserError('the rule reads means of its inputs: its METHOD must have statistics="moments"')
        return self.sums.double() / max(self.tokens, 1)

    @property
    def variances(self) -> Tensor:
        """The variance of each input feature over all tokens, [in] float64. A constant feature's is what float32 may
        have lost of its mean square, which is 0 for one that is never on."""
        squares = self._squares.double() / max(self.tokens, 1)
        return torch.maximum(squares - self.means.square(), torch.finfo(torch.float32).eps * squares)

    @property
    def _squares(self) -> Tensor:
        return self.total.diagonal() if self.needs_gram else self.total

    @property
    def hessian(self) -> Tensor:
        """H = (2 / n) G of the layer's reconstruction error, a new [in, in] tensor."""
        return self.gram * (2.0 / max(self.tokens, 1))


def relative_error(weight: Tensor, pruned: Tensor, gram: Tensor) -> float:
    """||X (W - P)'||^2 / ||X W'||^2, from the Gram matrix in float64; 0 where the layer's output is zero."""
    gram = gram.double()
    weight, change = weight.double(), weight.double() - pruned.double()
    reference = ((weight @ gram) * weight).sum()
    error = ((change @ gram) * change).sum()
    return float(error / reference) if reference > 0 else 0.0
