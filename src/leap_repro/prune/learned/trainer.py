"""Train the gates of a model on the language-modelling loss with the weights frozen: one trainer for every gate.

    min over logits of  E[ L_LM(W * M) ] + regulariser(M, t)

LEAP, MaskLLM and PATCH differ in their gates and regularisers only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.load import DTYPES
from leap_repro.models.prunable import decoder_blocks, linears_by_block, prunable_linears
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.learned import fused, held_out, processes
from leap_repro.prune.learned.gates import NOISES, Gate, source_on
from leap_repro.prune.learned.held_out import HeldOut
from leap_repro.prune.learned.loop import Loop, finite
from leap_repro.prune.learned.masked import MaskedLinear, Step, masked, running_blocks, size_of
from leap_repro.prune.learned.regularise import MaskStatistics, Regulariser
from leap_repro.prune.learned.stochastic_rounding import CHANCES

LOG_COLUMNS = (
    "step",
    "loss_lm",
    "density_relaxed",
    "density_hard",
    "tau",
    "kappa",
    "learning_rate",
    "density_term",
    "norm_term",
    "loss",
)
"""Per step: L_LM, mean relaxed mask, share that the logits keep as they stand, the schedules, the regulariser's terms
as added, the sum."""


class MaskTrainer(Loop):
    """One training run of one gate per prunable matrix, in module order; nothing outside it changes but checkpoints."""

    columns = LOG_COLUMNS

    def __init__(self, job: Job, gates: Iterable[Gate], regulariser: Regulariser, evaluations: int = 0) -> None:
        """`gates` may be made one by one: with several processes, what is made is shared out block by block.
        `evaluations`: how often masks are scored on held-out text (`held_out.py`, Bernoulli gates only)."""
        super().__init__(job)
        self.regulariser, self.devices = regulariser, processes.devices()
        _refuse_mixed(self.devices, self.source)
        linears = prunable_linears(self.model)
        self.numels = torch.tensor([linear.weight.numel() for linear in linears], dtype=torch.float64)
        self.layers: list[MaskedLinear] = []
        self.dense_sizes = torch.tensor(self._place(iter(gates)), dtype=torch.float64)
        self._prepare(chance=self.options.logits_rounding == "stochastic")
        self.held_out = None
        if evaluations:
            self.held_out = HeldOut(job, self.layers, regulariser, self.dense_sizes, self.language_loss)
            self.columns = (*LOG_COLUMNS, *held_out.COLUMNS)

    @property
    def source(self) -> str:
        """As the options say."""
        return source_on(self.device, self.options.noise_source)

    def trained(self) -> dict[str, nn.Parameter]:
        """Every gate's logits."""
        return {
            f"{layer.index}.{kind}": cast(nn.Parameter, leaf)
            for layer in self.layers
            for kind, leaf in layer.gate.logits.items()
        }

    def _place(self, gates: Iterator[Gate]) -> list[float]:
        """Give every matrix its gate, whose logits become parameters of the matrix's block, and every process its share
        of the model; returns the sizes of the dense matrices."""
        sizes, dtype, linears = [], DTYPES[self.options.logits_dtype], linears_by_block(self.model)
        for number, block in enumerate(decoder_blocks(self.model)[1]):
            held = nn.ModuleList()
            for linear in linears.get(number, []):
                gate = next(gates)
                leaves = ((kind, nn.Parameter(v.detach().to(self.device, dtype))) for kind, v in gate.logits.items())
                parameters = nn.ParameterDict(OrderedDict(leaves))
                gate.logits = cast("MutableMapping[str, Tensor]", parameters)
                held.append(parameters)
                kind = fused.layer_kind(gate, self.options, self.source, self.device)
                self.layers.append(kind(linear, gate, len(self.layers)))
                sizes.append(size_of(self.layers[-1].weight(), self.regulariser.absolute).item())
            if processes.count() > 1:
                block.add_module("gates", held)
            processes.shard(block, self.device)
        processes.shard(self.model, self.device)
        return sizes

    def train(self, facts: dict[str, Any]) -> PrunedCell:
        """Train to the end; "<name>.<kind>" per matrix, one log row per step, and `facts` for the manifest."""
        self.run(self.checkpoints)
        tensors = {
            f"{layer.linear.name}.{kind}": tensor
            for layer in self.layers
            for kind, tensor in layer.gate.results().items()
        }
        return PrunedCell(tensors, self.rows, facts | self._facts())

    def _facts(self) -> dict[str, Any]:
        """Where noise came from, and of several processes on what they ran."""
        shared = {"devices": self.devices} if processes.count() > 1 else {}
        return {"noise_source": self.source} | shared

    def step(self, number: int) -> dict[str, float]:
        """One optimiser step, without any state but the logits and the optimiser's moments; returns its log row."""
        options = self.options
        step = Step(
            self.seed,
            number,
            options.relaxation(number),
            keeps_products=options.keeps_products,
            keeps_masks=options.keeps_masks,
            anew=options.noise == "forward",
            absolute=self.regulariser.absolute,
            sums=getattr(torch, options.gradients_dtype),
            noise=NOISES[self.source],
            chances=CHANCES[self.source],
        )
        loss_lm, density, terms = self._gradients(step)
        if options.gradient_clip:
            nn.utils.clip_grad_norm_(self.optimizer.parameters, options.gradient_clip)
        self.optimizer.step(number, options.rate(number))
        kept = torch.stack([layer.gate.kept() for layer in self.layers]).sum()
        row = {
            "step": number,
            "loss_lm": loss_lm,
            "density_relaxed": density,
            "density_hard": kept.item() / self.numels.sum().item(),
            "tau": step.relaxation.tau,
            "kappa": step.relaxation.kappa,
            "learning_rate": options.rate(number),
            "density_term": terms[0],
            "norm_term": terms[1],
            "loss": loss_lm + sum(terms),
        }
        return finite(row) | (self.held_out.row(number) if self.held_out else {})

    def _state(self, steps: int) -> dict[str, Tensor]:
        """With the hard masks of the last held-out evaluation, which the next one is compared with."""
        hard = self.held_out.hard if self.held_out else {}
        return super()._state(steps) | {f"{index}.hard": packed for index, packed in hard.items()}

    def _gradients(self, step: Step) -> tuple[float, float, list[float]]:
        """Set every logit's gradient; returns L_LM over the batch, the relaxed density and the regulariser's terms.

        Each process has the gradient of its own micro-batches' mean and of the regulariser, and all take the average.
        """
        rounds = self._micro_batches(step.number)
        share = 1 / len(rounds)
        for leaf in self.optimizer.parameters:
            leaf.grad = None
        losses, measured = [], []
        options, keeps = self.options, self.options.gathered == "step"
        with running_blocks(self.model, options), processes.kept_gathered(self.model, keeps):
            for index, micro in enumerate(rounds):
                is_last = index + 1 == len(rounds)
                now = step.of_pass(processes.rank() + index * processes.count(), index == 0, is_last)
                with masked(self.layers, now, options):
                    loss = self.language_loss(self.tokens_NT[micro].to(self.device)) * share
                if now.measuring:
                    measured.append(self._regularise(step.number, share if step.anew else 1.0))
                processes.synchronise(self.model, is_last, keeps)
                with masked(self.layers, replace(now, measuring=False), options):  # for blocks that run again
                    loss.backward()
                losses.append(loss.detach())
        losses = torch.stack(losses).double().tolist()  # once a step: the next pass is queued while one runs
        measured = torch.tensor(measured, dtype=torch.float64).sum(dim=0).tolist()
        own = torch.tensor([sum(losses), *measured], dtype=torch.float64, device=self.device)
        loss, density, *terms = processes.mean(own).tolist()
        return loss, density, terms

    def _regularise(self, number: int, share: float) -> list[float]:
        """`share` of the density and of the regulariser's terms from a forward pass of a step; every layer is given its
        slopes.

        Raises UserError for a matrix that the pass did not use: nothing would train its mask.
        """
        unused = [layer.linear.name for layer in self.layers if layer.sum is None]
        if unused:
            raise UserError(f"{unused[0]} is not used by a pass over the training tokens: its mask cannot be learned")
        sums, sizes = (
            torch.stack([getattr(layer, name) for layer in self.layers]).double().cpu().requires_grad_(True)
            for name in ("sum", "size")
        )
        for layer in self.layers:
            layer.sum = layer.size = None
        statistics = MaskStatistics(sums, sizes, self.numels, self.dense_sizes)
        terms = self.regulariser(statistics, 1 - number / self.options.steps)
        total = share * (terms[0] + terms[1])
        slopes = torch.autograd.grad(total, (sums, sizes), allow_unused=True, materialize_grads=True)
        for layer in self.layers:
            layer.slopes = (float(slopes[0][layer.index]), float(slopes[1][layer.index]))
        return [share * part.item() for part in (statistics.density, *terms)]


def _refuse_mixed(devices: list[str], source: str) -> None:
    """UserError where the processes' noise would not be that of one step."""
    kinds = sorted(set(devices))
    if source == "generator" and len(kinds) > 1:
        why = f"its numbers differ between {' and '.join(kinds)}, on which these processes run"
        raise UserError(f"noise_source is 'generator': {why}; use counter, whose numbers are the same on all")
