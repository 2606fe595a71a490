"""Train weights themselves, with a mask each, and give them back as values under it: what recovery and ELSA share.

Weights are trained in float32, whatever the model computes in. The forward pass uses them in the model's type, so what
is trained is what is written, to the bit. Where a mask is 0 at the end, so is the weight. The rest of the model is
frozen.

Shapes: x is [..., in], weights and masks [out, in].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.prunable import PrunableLinear
from leap_repro.prune.job import Job
from leap_repro.prune.learned import processes
from leap_repro.prune.learned.loop import Loop, finite
from leap_repro.prune.learned.masked import linear, masked, matrix_product, running_blocks, with_product

LOG_COLUMNS = ("step", "loss_lm", "learning_rate", "gradient_norm", "loss")
"""Per step: L_LM, the rate, the norm of its gradient at all that is trained before it is clipped, and what is
minimised."""


class WeightLinear(ABC):
    """One prunable matrix whose weights are trained, and its mask; `leaves` is what the optimiser changes, by name."""

    def __init__(self, linear: PrunableLinear, keep: Tensor) -> None:
        self.linear, self.keep = linear, keep
        self.leaves: dict[str, nn.Parameter] = {}

    @property
    def anchor(self) -> Tensor:
        return next(iter(self.leaves.values()))

    def forward(self, x: Tensor, _: object) -> Tensor:
        return linear(x, self.linear.weight, self.linear.module.bias)

    @torch.no_grad()
    def backward(self, x: Tensor, gradient: Tensor, _: object, needs_input: bool) -> Tensor | None:
        """Add to the leaves' gradients; returns the one at the input, if it is needed."""
        gradient_TO = gradient.reshape(-1, gradient.shape[-1])
        self._receive(with_product(None, gradient_TO.T, x.reshape(-1, x.shape[-1])))
        if not needs_input:
            return None
        return matrix_product(gradient_TO, self.linear.weight).to(gradient.dtype).view(x.shape)

    @abstractmethod
    def _receive(self, gradient: Tensor) -> None:
        """Add a micro-batch's gradient at the weights, float32 [out, in], which may be changed."""

    @abstractmethod
    def merge(self) -> None:
        """Let the model compute with the leaves as they are now."""


def add_gradient(leaf: nn.Parameter, gradient: Tensor, share: float = 1.0) -> None:
    """Add `share` times the gradient to a leaf's own, which every step starts at 0."""
    assert leaf.grad is not None
    leaf.grad.add_(gradient, alpha=share)


class FullLinear(WeightLinear):
    """All weights, in float32; a model in float32 has no second copy of them."""

    def __init__(self, linear: PrunableLinear, keep: Tensor) -> None:
        super().__init__(linear, keep)
        self.leaves["values"] = nn.Parameter(linear.weight.detach().float().contiguous())

    def _receive(self, gradient: Tensor) -> None:
        add_gradient(self.leaves["values"], gradient)

    @torch.no_grad()
    def merge(self) -> None:
        self.linear.weight.copy_(self.leaves["values"])


class WeightTrainer(Loop):
    """One training run of every prunable matrix's weights, in one process, in module order."""

    columns = LOG_COLUMNS

    def __init__(self, job: Job) -> None:
        """UserError in one of several processes; whoever derives from it fills `layers`, then calls `_prepare`."""
        super().__init__(job)
        if processes.count() > 1:
            method = type(job.options).__module__.rpartition(".")[2]
            raise UserError(f"{method} trains in one process, not in {processes.count()}")
        self.store = job.store
        self.layers: Sequence[WeightLinear] = []

    def trained(self) -> dict[str, nn.Parameter]:
        """Every matrix's leaves."""
        return {
            f"{index}.{name}": leaf for index, layer in enumerate(self.layers) for name, leaf in layer.leaves.items()
        }

    def step(self, number: int) -> dict[str, float]:
        """One optimiser step; its gradient is the mean over the micro-batches, and what `_add` adds."""
        loss = self._gradients(number)
        limit, rate = self.options.gradient_clip or math.inf, self.options.rate(number)
        norm = nn.utils.clip_grad_norm_(self.optimizer.parameters, limit).item()
        added = self._add(number)
        self.optimizer.step(number, rate)
        return finite(dict(zip(LOG_COLUMNS, (number, loss, rate, norm, loss + added), strict=True)))

    def _gradients(self, number: int) -> float:
        """Set every leaf's gradient of L_LM over the batch; returns L_LM."""
        for layer in self.layers:
            layer.merge()
        for leaf in self.optimizer.parameters:
            leaf.grad = torch.zeros_like(leaf)
        losses, rounds = [], self._micro_batches(number)
        with masked(self.layers, None, self.options), running_blocks(self.model, self.options):
            for micro in rounds:
                loss = self.language_loss(self.tokens_NT[micro].to(self.device)) / len(rounds)
                loss.backward()
                losses.append(loss.detach())
        return sum(torch.stack(losses).double().tolist())

    def _add(self, number: int) -> float:
        """Add to the clipped gradients what is minimised beside L_LM; returns its value."""
        return 0.0

    def _write(self) -> None:
        """Leave "<name>.keep" and "<name>.values" of every matrix in the store, a file for each block."""
        blocks: dict[int, dict[str, Tensor]] = {}
        for layer in self.layers:
            layer.merge()
            tensors = blocks.setdefault(layer.linear.block, {})
            tensors[f"{layer.linear.name}.keep"] = layer.keep.cpu()
            tensors[f"{layer.linear.name}.values"] = _recounted(layer).cpu()
        for block, tensors in blocks.items():
            self.store.write(f"block-{block:05d}", tensors)


def _recounted(layer: WeightLinear) -> Tensor:
    """The trained weights; UserError if any is not 0 where the mask is."""
    values = layer.linear.weight.detach()
    astray = int(values[~layer.keep].count_nonzero())
    if astray:
        raise UserError(f"{layer.linear.name} has {astray} weights that its mask drops and that are not 0")
    return values.clone()
