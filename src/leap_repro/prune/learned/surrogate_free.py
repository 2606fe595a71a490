"""Train dense weights towards sparse ones by ADMM on the language-modelling loss itself (ELSA, arXiv 2510.01650).

    min over x, z of  L_LM(x)  where x = z and z is sparse, by its augmented Lagrangian with the scaled dual u

    x    AdamW's steps on  L_LM(x) + lambda/2 ||x - z + u||^2
    z    after every so many of them, the sparse point nearest to x + u, as a diagonal norm measures it
    u    u + x - z

z is x + u where it is not 0, so u is 0 there: the two never overlap, and one tensor, z - u, holds both. Beside it lies
the mask of z. At the end x itself is projected.

Shapes: x, z, u, masks, scores and sizes are [out, in].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from leap_repro.models.prunable import PrunableLinear, prunable_linears
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.learned.weights import LOG_COLUMNS, FullLinear, WeightTrainer, add_gradient

Select = Callable[[Tensor], Tensor]
"""Which weights stay, a bool mask, by their scores, of which larger ones stay."""


class SplitLinear(FullLinear):
    """One prunable matrix x, its sparse copy z, of which `keep` is the mask, and the dual u; `target` is z - u."""

    def __init__(self, linear: PrunableLinear, select: Select) -> None:
        """z starts as the projection of x by size alone, u at 0."""
        super().__init__(linear, select(linear.weight.detach().float().abs()))
        self.select, self.target = select, self.leaves["values"].detach() * self.keep

    @torch.no_grad()
    def pull(self, penalty: float) -> float:
        """Add the penalty's gradient to the loss's; returns the penalty, penalty / 2 ||x - z + u||^2."""
        values = self.leaves["values"]
        apart = values - self.target
        add_gradient(values, apart, penalty)
        return penalty / 2 * apart.square_().sum().item()

    @torch.no_grad()
    def project(self, sizes: Tensor | float, rescale: float) -> int:
        """z becomes the projection of x + u in the norm of `sizes`, u takes up the rest, times `rescale`; returns how
        many weights of the mask changed."""
        total = self.leaves["values"] - self.target.masked_fill(self.keep, 0)
        before, self.keep = self.keep, self.select(total.abs().mul_(sizes))
        self.target = total.where(self.keep, total.mul(-rescale))
        return int((before ^ self.keep).sum())

    @torch.no_grad()
    def finish(self, sizes: Tensor | float) -> None:
        """x becomes its own projection."""
        values = self.leaves["values"]
        self.keep = self.select(values.abs().mul_(sizes))
        values.masked_fill_(~self.keep, 0)


class SurrogateFreeTrainer(WeightTrainer):
    """One training run of every prunable matrix's weights and masks; `select` meets each matrix's budget."""

    columns = (*LOG_COLUMNS, "penalty", "changed")
    """Besides: lambda, and the share of the masks that the projection after the step changed."""

    def __init__(self, job: Job, select: Select) -> None:
        super().__init__(job)
        self.layers = self.split = [SplitLinear(linear, select) for linear in prunable_linears(self.model)]
        self._prepare()

    def train(self, facts: dict[str, Any]) -> PrunedCell:
        """Train to the end and project; "<name>.keep" and "<name>.values" per matrix, one log row per step."""
        self.run(self.checkpoints)
        for index, layer in enumerate(self.split):
            layer.finish(self._sizes(index, self.options.steps))
        self._write()
        return PrunedCell(self.store, self.rows, facts)

    def step(self, number: int) -> dict[str, float]:
        """One step of x and, if it is the last of a round but not of all, of z and u."""
        row, done, changed = super().step(number), number + 1, 0.0
        if done % self.options.interval == 0 and done < self.options.steps:
            changed = self._project(done)
        return row | {"penalty": self.options.penalty_at(number), "changed": changed}

    def _add(self, number: int) -> float:
        """The penalty."""
        penalty = self.options.penalty_at(number)
        return sum(layer.pull(penalty) for layer in self.split)

    def _project(self, done: int) -> float:
        """z and u after so many steps; returns the share of the masks that changed. lambda u, the dual, stays what it
        is when lambda changes (Boyd et al. 2011, section 3.4.1)."""
        after = self.options.penalty_at(done)
        rescale = self.options.penalty_at(done - 1) / after if after else 1.0
        changed = sum(layer.project(self._sizes(index, done), rescale) for index, layer in enumerate(self.split))
        return changed / sum(layer.keep.numel() for layer in self.split)

    def _sizes(self, index: int, done: int) -> Tensor | float:
        """The root of the norm's diagonal: what AdamW divides a step by, sqrt(v) + epsilon, after so many steps."""
        if self.options.projection == "euclidean":
            return 1.0
        second = self.optimizer.second[index].read(slice(None))
        return (second / (1 - self.options.beta2**done)).sqrt_().add_(self.options.epsilon)

    def _state(self, steps: int) -> dict[str, Tensor]:
        """Targets and masks too."""
        split = {
            f"{index}.{name}": tensor
            for index, layer in enumerate(self.split)
            for name, tensor in (("target", layer.target), ("keep", layer.keep))
        }
        return super()._state(steps) | split
