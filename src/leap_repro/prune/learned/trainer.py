"""Train the gates of a model on the language-modelling loss with the weights frozen: one trainer for every gate.

    min over logits of  E[ L_LM(W * M) ] + regulariser(M, t)

LEAP, MaskLLM and PATCH differ in their gates and regularisers only.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.load import DTYPES, best_device
from leap_repro.models.prunable import PrunableLinear, decoder_blocks, prunable_linears
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.learned import checkpoint, fused, processes
from leap_repro.prune.learned.adamw import AdamW
from leap_repro.prune.learned.gates import NOISES, Gate
from leap_repro.prune.learned.loss import LanguageLoss
from leap_repro.prune.learned.masked import MaskedLinear, Step, masked, recomputed_blocks, size_of
from leap_repro.prune.learned.progress import Progress
from leap_repro.prune.learned.regularise import MaskStatistics, Regulariser
from leap_repro.seeds import named_seed

log = logging.getLogger(__name__)
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


class MaskTrainer:
    """One training run of one gate per prunable matrix, in module order; nothing outside it changes but checkpoints."""

    def __init__(self, job: Job, gates: Iterable[Gate], regulariser: Regulariser) -> None:
        """`gates` may be made one by one: with several processes, what is made is shared out block by block."""
        self.checkpoints = job.checkpoints
        self.model, self.tokens_NT, self.options, self.seed = job.model, job.required_tokens(), job.options, job.seed
        self.regulariser = regulariser
        self.device = best_device()
        linears = prunable_linears(self.model)
        self.numels = torch.tensor([linear.weight.numel() for linear in linears], dtype=torch.float64)
        self.layers: list[MaskedLinear] = []
        self.dense_sizes = torch.tensor(self._place(linears, iter(gates)), dtype=torch.float64)
        parameters = [leaf for layer in self.layers for leaf in layer.gate.logits.values()]
        betas = (self.options.beta1, self.options.beta2)
        self.optimizer = AdamW(
            parameters,
            betas,
            self.options.weight_decay,
            getattr(torch, self.options.state_dtype),
            chance=self.options.logits_rounding == "stochastic",
            seed=self.seed,
        )
        self.language_loss = LanguageLoss(self.model, self.options.micro_batch_size * self.tokens_NT.shape[1])
        self.rows: list[dict[str, float]] = []

    def _place(self, linears: list[PrunableLinear], gates: Iterator[Gate]) -> list[float]:
        """Give every matrix its gate, whose logits become parameters of the matrix's block, and every process its share
        of the model; returns the sizes of the dense matrices."""
        sizes, dtype = [], DTYPES[self.options.logits_dtype]
        for number, block in enumerate(decoder_blocks(self.model)[1]):
            held = nn.ModuleList()
            for linear in (one for one in linears if one.block == number):
                gate = next(gates)
                leaves = ((kind, nn.Parameter(v.detach().to(self.device, dtype))) for kind, v in gate.logits.items())
                gate.logits = nn.ParameterDict(OrderedDict(leaves))
                held.append(gate.logits)
                kind = fused.layer_kind(gate, self.options, self.device)
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
        return PrunedCell(tensors, self.rows, facts)

    def step(self, number: int) -> dict[str, float]:
        """One optimiser step, without any state but the logits and the optimiser's moments; returns its log row."""
        options = self.options
        anew = options.noise == "forward"
        remake, absolute = options.gradient_checkpointing, self.regulariser.absolute
        step = Step(self.seed, number, options.relaxation(number), remake=remake, anew=anew, absolute=absolute)
        step.sums = getattr(torch, options.gradients_dtype)
        step.noise = NOISES[options.noise_source]
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
        if not math.isfinite(row["loss"]):
            raise UserError(f"the loss of step {number} is {row['loss']}: the training has diverged")
        return row

    def _gradients(self, step: Step) -> tuple[float, float, list[float]]:
        """Set every logit's gradient; returns L_LM over the batch, the relaxed density and the regulariser's terms.

        Each process has the gradient of its own micro-batches' mean and of the regulariser, and all take the average.
        """
        rounds = self._micro_batches(step.number)
        share = 1 / len(rounds)
        for leaf in self.optimizer.parameters:
            leaf.grad = None
        losses, measured = [], []
        with masked(self.layers, step), recomputed_blocks(self.model, self.options.gradient_checkpointing):
            for index, micro in enumerate(rounds):
                step.micro, step.measuring = processes.rank() + index * processes.count(), step.anew or index == 0
                loss = self.language_loss(self.tokens_NT[micro].to(self.device)) * share
                if step.measuring:
                    measured.append(self._regularise(step, share if step.anew else 1.0))
                step.last = step.anew or index + 1 == len(rounds)
                processes.synchronise(self.model, index + 1 == len(rounds))
                loss.backward()
                losses.append(loss.item())
        measured = torch.tensor(measured, dtype=torch.float64).sum(dim=0).tolist()
        own = torch.tensor([sum(losses), *measured], dtype=torch.float64, device=self.device)
        loss, density, *terms = processes.mean(own).tolist()
        return loss, density, terms

    def _micro_batches(self, number: int) -> list[Tensor]:
        """This process's share of the step's micro-batches: every count-th."""
        size, count = self.options.micro_batch_size, processes.count()
        micro = batch_indices(number, self.options.batch_size, len(self.tokens_NT), self.seed).split(size)
        if len(micro) % count:
            raise UserError(f"{len(micro)} micro-batches per step cannot be shared by {count} processes")
        return list(micro[processes.rank() :: count])

    def _regularise(self, step: Step, share: float) -> list[float]:
        """`share` of the density and of the regulariser's terms from a forward pass; the slopes go into `step`.

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
        terms = self.regulariser(statistics, 1 - step.number / self.options.steps)
        total = share * sum(terms)
        step.slopes = torch.autograd.grad(total, (sums, sizes), allow_unused=True, materialize_grads=True)
        step.measuring = False
        return [share * number.item() for number in (statistics.density, *terms)]

    def run(self, checkpoints: Path | None) -> list[dict[str, float]]:
        """Train to the end, resuming from `checkpoints` if it holds a state; returns one log row per step."""
        done = self._resume(checkpoints)
        progress = Progress(done, self.options.steps)
        for number in range(done, self.options.steps):
            self.rows.append(self.step(number))
            if processes.rank() == 0:
                progress.report(self.rows[-1])
            if checkpoints and (number + 1) % self.options.checkpoint_steps == 0 and number + 1 < self.options.steps:
                self._save(checkpoints)
        return self.rows

    def _state(self, steps: int) -> dict[str, Tensor]:
        """Every tensor that a step reads and changes, by name: logits, moments, and room for the log of `steps`."""
        logits = {f"{layer.index}.{kind}": leaf for layer in self.layers for kind, leaf in layer.gate.logits.items()}
        moments = {
            name: processes.shard_of(tensor, logits[".".join(name.split(".")[:2])])
            for name, tensor in self.optimizer.state([*logits]).items()
        }
        room = torch.zeros(steps, len(LOG_COLUMNS), dtype=torch.float64)
        return {f"{name}.logits": leaf for name, leaf in logits.items()} | moments | {"log": room}

    def _save(self, folder: Path) -> None:
        """Write logits, moments and the log so far, every process its own shards."""
        state = self._state(len(self.rows))
        for kept, row in zip(state["log"], self.rows, strict=True):
            kept.copy_(torch.tensor([row[name] for name in LOG_COLUMNS], dtype=torch.float64))
        checkpoint.save(folder, len(self.rows), state)

    def _resume(self, folder: Path | None) -> int:
        """Load the newest whole state in `folder`, if any; the number of steps already done."""
        done = processes.said_by_first(lambda: checkpoint.newest(folder)) if folder else None
        if not done:
            return 0
        state = self._state(done)
        checkpoint.load(folder, done, state)
        rows = (dict(zip(LOG_COLUMNS, row.tolist(), strict=True)) for row in state["log"])
        self.rows = [row | {"step": int(row["step"])} for row in rows]
        log.info("resumed after step %d of %d", done, self.options.steps)
        return done


def batch_indices(step: int, batch_size: int, sequences: int, seed: int) -> Tensor:
    """Which sequences step `step` reads: one seeded permutation per pass over the data, no state to save."""
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    passes = positions // sequences
    order = {
        int(p): torch.randperm(sequences, generator=torch.Generator().manual_seed(named_seed("order", seed, int(p))))
        for p in passes.unique()
    }
    return torch.stack([order[int(p)][i % sequences] for p, i in zip(passes, positions, strict=True)])
