"""What relaxed masks promise and what hard ones keep, in the middle of a training, on text that it does not see.

A training lowers the loss of masks that are neither 0 nor 1, drawn anew at every step; what is used is a hard mask. So
at some steps the same held-out tokens are scored three times: with the relaxed mask as a step of this temperature
draws it (from noise that no step of the training has), with the mask that exact hardening would make now (`topk`), and
with theta > 0 (`threshold`). Weights, logits and the training's noise are left as they are.

Shapes: weights, masks and logits are [out, in].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.prunable import PrunableLinear
from leap_repro.prune.learned.gates import NOISES, source_on
from leap_repro.prune.learned.loss import LanguageLoss
from leap_repro.prune.learned.masked import MaskedLinear, Step, masked, size_of
from leap_repro.prune.learned.processes import whole
from leap_repro.prune.learned.regularise import MaskStatistics, Regulariser
from leap_repro.sparsity.budget import kept
from leap_repro.sparsity.masks import pack
from leap_repro.sparsity.selection import Cut, cut_at

if TYPE_CHECKING:
    from leap_repro.prune.job import Job

COLUMNS = (
    "held_out_relaxed",
    "held_out_objective",
    "held_out_topk",
    "held_out_threshold",
    "agreement",
    "undecided",
)
"""L_LM of the relaxed mask in nats per token, and with the regulariser's terms; L_LM of the mask hardened exactly, and
of theta > 0; the share of weights that the exact mask treats as it did at the last evaluation (NaN at the first);
the share of relaxed gates between 0.1 and 0.9."""
UNDECIDED = (0.1, 0.9)
NOT_EVALUATED: dict[str, float] = dict.fromkeys(COLUMNS, math.nan)

Choose = Callable[[MaskedLinear, Tensor], Tensor]
"""A layer's mask, given its logits."""


def evaluated_steps(steps: int, evaluations: int) -> frozenset[int]:
    """The steps after which held-out text is scored: the first, and `evaluations` in equal distances up to the last."""
    return frozenset(
        {0, *(math.ceil(i * steps / evaluations) - 1 for i in range(1, evaluations + 1))} if evaluations else ()
    )


class HeldOut:
    """The held-out evaluations of one training. `hard` are the packed exact masks of the last one, by matrix: part of
    its state."""

    def __init__(
        self, job: Job, layers: list[MaskedLinear], regulariser: Regulariser, dense_sizes: Tensor, loss: LanguageLoss
    ) -> None:
        """UserError if the job brings no held-out tokens."""
        if job.held_out is None:
            raise UserError("held_out_evaluations needs held-out text: give --held-out")
        self.tokens_NT, self.options, self.seed = job.held_out, job.options, job.seed
        self.sparsity, self.layers, self.loss = job.sparsity, layers, loss
        self.device = layers[0].linear.weight.device
        self.regulariser, self.dense_sizes = regulariser, dense_sizes
        self.steps = evaluated_steps(job.options.steps, job.options.held_out_evaluations)
        self.numels = torch.tensor([layer.linear.weight.numel() for layer in layers], dtype=torch.float64)
        self.hard = {
            layer.index: torch.zeros(-(-layer.linear.weight.numel() // 8), dtype=torch.uint8) for layer in layers
        }

    @torch.no_grad()
    def row(self, number: int) -> dict[str, float]:
        """COLUMNS after step `number`; NaN where nothing is evaluated."""
        if number not in self.steps:
            return NOT_EVALUATED
        relaxed = _Relaxed(self._step(number))
        language = self._score(relaxed)
        cuts = exact_cuts(self.layers, self.sparsity, self.options.facts["budget_scope"] == "tensor")
        hard = _Exact(cuts)
        topk, before = self._score(hard), self.hard
        self.hard = hard.packed
        return dict(
            zip(
                COLUMNS,
                (
                    language,
                    language + self._terms(relaxed, number),
                    topk,
                    self._score(lambda layer, theta: theta > 0),
                    self._agreement(before) if number else math.nan,
                    relaxed.undecided / self.numels.sum().item(),
                ),
                strict=True,
            )
        )

    def _score(self, choose: Choose) -> float:
        """L_LM over the held-out tokens with the masks that `choose` makes, in nats per token."""
        total, keeps = 0.0, self.options.keeps_products
        with masked([_Evaluated(layer, choose, keeps) for layer in self.layers], None):
            for part in self.tokens_NT[:].split(self.options.micro_batch_size):
                total += len(part) * self.loss(part.to(self.device)).item()
        return total / len(self.tokens_NT)

    def _terms(self, relaxed: _Relaxed, number: int) -> float:
        """The regulariser's terms of these masks at step `number`."""
        sums, sizes = (
            torch.tensor(list(found.values()), dtype=torch.float64) for found in (relaxed.sums, relaxed.sizes)
        )
        statistics = MaskStatistics(sums, sizes, self.numels, self.dense_sizes)
        return float(sum(self.regulariser(statistics, 1 - number / self.options.steps)))

    def _agreement(self, before: dict[int, Tensor]) -> float:
        """The share of weights that the masks now in `hard` treat as those `before` did."""
        other = sum(
            int(np.bitwise_count(self.hard[index].numpy() ^ packed.numpy()).sum()) for index, packed in before.items()
        )
        return 1 - other / self.numels.sum().item()

    def _step(self, number: int) -> Step:
        """Draws noise as step `number` does, but numbers that no step of the training has."""
        options = self.options
        return Step(
            self.seed,
            options.steps + number,
            options.relaxation(number),
            absolute=self.regulariser.absolute,
            noise=NOISES[source_on(self.device, options.noise_source)],
        )


class _Relaxed:
    """Chooses the relaxed mask; notes the sum, the size and the undecided gates of each matrix."""

    def __init__(self, step: Step) -> None:
        self.step, self.undecided = step, 0
        self.sums: dict[int, float] = {}
        self.sizes: dict[int, float] = {}

    def __call__(self, layer: MaskedLinear, theta: Tensor) -> Tensor:
        soft = layer.gate.mask(layer.noise(self.step), self.step.relaxation._replace(hard=False))
        mask = (soft > 0.5).to(soft.dtype) if self.step.relaxation.hard else soft
        if layer.index not in self.sums:
            least, most = UNDECIDED
            self.undecided += int(((soft > least) & (soft < most)).sum())
            self.sums[layer.index] = float(mask.sum(dtype=torch.float64))
            self.sizes[layer.index] = float(size_of(layer.weight() * mask, self.step.absolute))
        return mask


class _Exact:
    """Chooses the mask that exact hardening would make; keeps it packed."""

    def __init__(self, cuts: dict[str, Cut]) -> None:
        self.cuts = cuts
        self.packed: dict[int, Tensor] = {}

    def __call__(self, layer: MaskedLinear, theta: Tensor) -> Tensor:
        mask = self.cuts[layer.linear.name].mask(layer.linear.name, theta)
        if layer.index not in self.packed:
            self.packed[layer.index] = pack(mask)
        return mask


def exact_cuts(layers: list[MaskedLinear], sparsity: Fraction, per_matrix: bool) -> dict[str, Cut]:
    """By matrix, the cut that leaves exactly the budget of all matrices together, or of each by itself."""
    logits = _Logits(layers)
    if per_matrix:
        return {name: cut_at({name: theta}, kept(sparsity, theta.numel())) for name, theta in logits.items()}
    count = kept(sparsity, sum(layer.linear.weight.numel() for layer in layers))
    return dict.fromkeys(logits, cut_at(logits, count))


class _Logits(Mapping[str, Tensor]):
    """Every matrix's logits in whole, on the CPU, gathered from all processes when they are asked for."""

    def __init__(self, layers: list[MaskedLinear]) -> None:
        self._layers = {layer.linear.name: layer for layer in layers}

    def __getitem__(self, name: str) -> Tensor:
        return whole(self._layers[name].gate.logits["logits"].detach()).cpu()

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


@dataclass
class _Evaluated:
    """A matrix in the passes over held-out tokens: it computes with the mask that `choose` makes, once if W * M is kept
    for all passes."""

    layer: MaskedLinear
    choose: Choose
    keeps: bool
    kept: Tensor | None = None

    @property
    def linear(self) -> PrunableLinear:
        return self.layer.linear

    @property
    def anchor(self) -> Tensor:
        return self.layer.anchor

    def backward(self, x: Tensor, gradient: Tensor, _: object, needs_input: bool) -> Tensor | None:
        """Nothing is trained in such a pass."""
        raise NotImplementedError

    def forward(self, x: Tensor, _: Step | None) -> Tensor:
        return nn.functional.linear(x, self._product(), self.linear.module.bias)

    def _product(self) -> Tensor:
        if self.kept is not None:
            return self.kept
        mask = self.choose(self.layer, self.layer.gate.logits["logits"].detach())
        product = (self.layer.weight() * mask).to(self.linear.weight.dtype)
        self.kept = product if self.keeps else None
        return product
