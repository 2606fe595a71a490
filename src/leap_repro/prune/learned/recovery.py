"""Train the weights that a mask keeps, in full or by low-rank pairs, and give them back as values under the same mask.

    full    W <- W - step(M * dL/dW)                       in float32, whatever the model computes in
    LoRA    W = W0 + M * (a / r) B A                       B starts at 0, A is drawn; A and B are trained

The forward pass uses W in the model's type, so what is trained is what is merged, to the bit. M is the parent's mask
and never changes: where it is 0, so is W. The rest of the model is frozen.

Shapes: x is [..., in], W and M [out, in], A [r, in], B [out, r].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.prunable import PrunableLinear, prunable_linears
from leap_repro.prune.job import Job, Parent, PrunedCell
from leap_repro.prune.learned import processes
from leap_repro.prune.learned.loop import Loop, finite
from leap_repro.prune.learned.masked import masked, matrix_product, recomputed_blocks
from leap_repro.seeds import named_seed
from leap_repro.store.masks import put

LOG_COLUMNS = ("step", "loss_lm", "learning_rate", "gradient_norm", "loss")
"""Per step: L_LM, the rate, the norm of the gradient of all that is trained before it is clipped, L_LM again."""


class KeptLinear(ABC):
    """One prunable matrix of which the kept weights are trained; `leaves` is what the optimiser changes, by name."""

    def __init__(self, linear: PrunableLinear, keep: Tensor) -> None:
        self.linear, self.keep = linear, keep
        self.leaves: dict[str, nn.Parameter] = {}

    @property
    def anchor(self) -> Tensor:
        return next(iter(self.leaves.values()))

    def forward(self, x: Tensor, _: object) -> Tensor:
        return nn.functional.linear(x, self.linear.weight, self.linear.module.bias)

    @torch.no_grad()
    def backward(self, x: Tensor, gradient: Tensor, _: object, needs_input: bool) -> Tensor | None:
        """Add to the leaves' gradients; returns the one at the input, if it is needed."""
        gradient_TO = gradient.reshape(-1, gradient.shape[-1])
        self._receive(matrix_product(gradient_TO.T, x.reshape(-1, x.shape[-1])).float().mul_(self.keep))
        if not needs_input:
            return None
        return matrix_product(gradient_TO, self.linear.weight).to(gradient.dtype).view(x.shape)

    @abstractmethod
    def _receive(self, gradient: Tensor) -> None:
        """Add a micro-batch's gradient at the kept weights, float32 [out, in], zero elsewhere."""

    @abstractmethod
    def merge(self) -> None:
        """Let the model compute with the leaves as they are now."""


class FullLinear(KeptLinear):
    """All kept weights, in float32; a model in float32 has no second copy of them."""

    def __init__(self, linear: PrunableLinear, keep: Tensor) -> None:
        super().__init__(linear, keep)
        self.leaves["values"] = nn.Parameter(linear.weight.detach().float().contiguous())

    def _receive(self, gradient: Tensor) -> None:
        self.leaves["values"].grad.add_(gradient)

    @torch.no_grad()
    def merge(self) -> None:
        self.linear.weight.copy_(self.leaves["values"])


class LowRankLinear(KeptLinear):
    """A pair A, B beside the parent's weights, as LoRA (arXiv 2106.09685) starts it: A uniform within 1 / sqrt(in)."""

    def __init__(self, linear: PrunableLinear, keep: Tensor, rank: int, scale: float, seed: int) -> None:
        super().__init__(linear, keep)
        self.scale, self.start = scale, linear.weight.detach().clone()
        (rows, columns), generator = linear.weight.shape, torch.Generator().manual_seed(seed)
        drawn = (2 * torch.rand(rank, columns, generator=generator) - 1) / math.sqrt(columns)
        self.leaves["a"] = nn.Parameter(drawn.to(self.start.device))
        self.leaves["b"] = nn.Parameter(torch.zeros(rows, rank, device=self.start.device))

    def _receive(self, gradient: Tensor) -> None:
        a, b = self.leaves.values()
        a.grad.add_(b.T @ gradient, alpha=self.scale)
        b.grad.add_(gradient @ a.T, alpha=self.scale)

    @torch.no_grad()
    def merge(self) -> None:
        a, b = self.leaves.values()
        self.linear.weight.copy_((b @ a).mul_(self.scale).mul_(self.keep).add_(self.start))


class RecoveryTrainer(Loop):
    """One training run of the weights that the parent's masks keep, in module order."""

    columns = LOG_COLUMNS

    def __init__(self, job: Job) -> None:
        """The model's prunable weights become the parent's; UserError for a parent of another model or sparsity."""
        super().__init__(job)
        if processes.count() > 1:
            raise UserError(f"recover trains in one process, not in {processes.count()}")
        self.parent, self.store = _checked(job), job.store
        self.layers = [self._layer(index, linear) for index, linear in enumerate(prunable_linears(self.model))]
        self._prepare()

    def _layer(self, index: int, linear: PrunableLinear) -> KeptLinear:
        keep = self.parent.masks[linear.name].to(linear.weight.device)
        put(linear.weight, keep, self.parent.values.get(linear.name))
        rank = self.options.lora_rank
        if not rank:
            return FullLinear(linear, keep)
        return LowRankLinear(linear, keep, rank, self.options.lora_alpha / rank, named_seed("lora", self.seed, index))

    def trained(self) -> dict[str, nn.Parameter]:
        """Every matrix's kept weights, or its pair."""
        return {
            f"{index}.{name}": leaf for index, layer in enumerate(self.layers) for name, leaf in layer.leaves.items()
        }

    def train(self, facts: dict[str, Any]) -> PrunedCell:
        """Train to the end; "<name>.keep" and "<name>.values" per matrix, one log row per step. The parent decides what
        the cell promises, whatever `facts` say of the method."""
        self.run(self.checkpoints)
        blocks: dict[int, dict[str, Tensor]] = {}
        for layer in self.layers:
            layer.merge()
            tensors = blocks.setdefault(layer.linear.block, {})
            tensors[f"{layer.linear.name}.keep"] = layer.keep.cpu()
            tensors[f"{layer.linear.name}.values"] = _recounted(layer).cpu()
        for block, tensors in blocks.items():
            self.store.write(f"block-{block:05d}", tensors)
        return PrunedCell(self.store, self.rows, facts | self.parent.promises | {"recovery": self._budget()})

    def _budget(self) -> dict[str, Any]:
        """Whose mask it is, and what was trained on how much."""
        options = self.options
        tokens = options.steps * options.batch_size * self.tokens_NT.shape[1]
        trained = {"lora_rank": options.lora_rank, "steps": options.steps, "tokens": tokens}
        return {"parent": self.parent.cell, "parent_manifest_sha256": self.parent.manifest_sha256} | trained

    def step(self, number: int) -> dict[str, float]:
        """One optimiser step; its gradient is the mean over the micro-batches."""
        for layer in self.layers:
            layer.merge()
        for leaf in self.optimizer.parameters:
            leaf.grad = torch.zeros_like(leaf)
        losses, rounds = [], self._micro_batches(number)
        with masked(self.layers, None), recomputed_blocks(self.model, self.options.gradient_checkpointing):
            for micro in rounds:
                loss = self.language_loss(self.tokens_NT[micro].to(self.device)) / len(rounds)
                loss.backward()
                losses.append(loss.item())
        limit, rate = self.options.gradient_clip or math.inf, self.options.rate(number)
        norm = nn.utils.clip_grad_norm_(self.optimizer.parameters, limit).item()
        self.optimizer.step(number, rate)
        loss = sum(losses)
        return finite(dict(zip(LOG_COLUMNS, (number, loss, rate, norm, loss), strict=True)))


def _checked(job: Job) -> Parent:
    """The job's parent; UserError without one, or for one of another model or sparsity."""
    parent = job.parent
    if parent is None:
        raise UserError("recover goes on from another method's hardened cell: it needs --parent")
    parent.require_fits((linear.name for linear in prunable_linears(job.model)), job.sparsity)
    return parent


def _recounted(layer: KeptLinear) -> Tensor:
    """The trained weights; UserError if any is not 0 where the mask is."""
    values = layer.linear.weight.detach()
    astray = int(values[~layer.keep].count_nonzero())
    if astray:
        raise UserError(f"{layer.linear.name} has {astray} weights that its mask drops and that are not 0")
    return values.clone()
