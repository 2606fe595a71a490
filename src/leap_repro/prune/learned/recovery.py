"""Train the weights that a mask keeps, in full or by low-rank pairs, and give them back as values under the same mask.

    full    W <- W - step(M * dL/dW)                       in float32, whatever the model computes in
    LoRA    W = W0 + M * (a / r) B A                       B starts at 0, A is drawn; A and B are trained

M is the parent's mask and never changes: where it is 0, so is W. The rest of the model is frozen (`weights.py`).

Shapes: W and M are [out, in], A [r, in], B [out, r].
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.prunable import PrunableLinear, prunable_linears
from leap_repro.prune.job import Job, Parent, PrunedCell
from leap_repro.prune.learned.weights import FullLinear, WeightLinear, WeightTrainer, add_gradient
from leap_repro.seeds import named_seed
from leap_repro.sparsity.masks import put


class KeptLinear(FullLinear):
    """All weights that the mask keeps."""

    def _receive(self, gradient: Tensor) -> None:
        super()._receive(gradient.mul_(self.keep))


class LowRankLinear(WeightLinear):
    """A pair A, B beside the parent's weights, as LoRA (arXiv 2106.09685) starts it: A uniform within 1 / sqrt(in)."""

    def __init__(self, linear: PrunableLinear, keep: Tensor, rank: int, scale: float, seed: int) -> None:
        super().__init__(linear, keep)
        self.scale, self.start = scale, linear.weight.detach().clone()
        (rows, columns), generator = linear.weight.shape, torch.Generator().manual_seed(seed)
        drawn = (2 * torch.rand(rank, columns, generator=generator) - 1) / math.sqrt(columns)
        self.leaves["a"] = nn.Parameter(drawn.to(self.start.device))
        self.leaves["b"] = nn.Parameter(torch.zeros(rows, rank, device=self.start.device))

    def _receive(self, gradient: Tensor) -> None:
        (a, b), gradient = self.leaves.values(), gradient.mul_(self.keep)
        add_gradient(a, b.T @ gradient, self.scale)
        add_gradient(b, gradient @ a.T, self.scale)

    @torch.no_grad()
    def merge(self) -> None:
        a, b = self.leaves.values()
        self.linear.weight.copy_((b @ a).mul_(self.scale).mul_(self.keep).add_(self.start))


class RecoveryTrainer(WeightTrainer):
    """One training run of the weights that the parent's masks keep."""

    def __init__(self, job: Job) -> None:
        """The model's prunable weights become the parent's; UserError for a parent of another model or sparsity."""
        super().__init__(job)
        self.parent = _checked(job)
        self.layers = [self._layer(index, linear) for index, linear in enumerate(prunable_linears(self.model))]
        self._prepare()

    def _layer(self, index: int, linear: PrunableLinear) -> WeightLinear:
        keep = self.parent.masks[linear.name].to(linear.weight.device)
        put(linear.weight, keep, self.parent.values.get(linear.name))
        rank = self.options.lora_rank
        if not rank:
            return KeptLinear(linear, keep)
        return LowRankLinear(linear, keep, rank, self.options.lora_alpha / rank, named_seed("lora", self.seed, index))

    def batch_of(self, number: int) -> int:
        """After those that trained the parent's mask, if the options say so."""
        return self.options.first_batch + number

    def train(self, facts: dict[str, Any]) -> PrunedCell:
        """Train to the end; "<name>.keep" and "<name>.values" per matrix, one log row per step. The parent decides what
        the cell promises, whatever `facts` say of the method."""
        self.run(self.checkpoints)
        self._write()
        return PrunedCell(self.store, self.rows, facts | self.parent.promises | {"recovery": self._budget()})

    def _budget(self) -> dict[str, Any]:
        """Whose mask it is, and what was trained on how much."""
        options = self.options
        tokens = options.steps * options.batch_size * self.tokens_NT.shape[1]
        trained = {"lora_rank": options.lora_rank, "steps": options.steps, "tokens": tokens}
        return {"parent": self.parent.cell, "parent_manifest_sha256": self.parent.manifest_sha256} | trained


def _checked(job: Job) -> Parent:
    """The job's parent; UserError without one, or for one of another model or sparsity."""
    parent = job.parent
    if parent is None:
        raise UserError("recover continues from another method's hardened cell: it needs a parent")
    parent.require_fits((linear.name for linear in prunable_linears(job.model)), job.sparsity)
    return parent
