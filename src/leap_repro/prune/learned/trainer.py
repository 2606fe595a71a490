"""Train the gates of a model on the language-modelling loss with the weights frozen: one trainer for every gate.

    min over logits of  E[ L_LM(W * M) ] + regulariser(M, t)

LEAP, MaskLLM and PATCH differ in their gates and regularisers only.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.models.load import DTYPES
from leap_repro.models.prunable import prunable_linears
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.learned import checkpoint, fused, processes
from leap_repro.prune.learned.adamw import AdamW
from leap_repro.prune.learned.gates import NOISES, Gate
from leap_repro.prune.learned.loss import next_token_loss
from leap_repro.prune.learned.masked import Step, masked, recomputed_blocks, size_of
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

    def __init__(self, job: Job, gates: list[Gate], regulariser: Regulariser) -> None:
        self.checkpoints = job.checkpoints
        self.model, self.tokens_NT, self.options, self.seed = job.model, job.required_tokens(), job.options, job.seed
        self.regulariser = regulariser
        self.device = next(self.model.parameters()).device
        dtype = DTYPES[self.options.logits_dtype]
        linears = prunable_linears(self.model)
        kinds = [fused.layer_kind(gate, self.options, self.device) for gate in gates]
        self.layers = [
            kind(*pair, index) for index, (kind, *pair) in enumerate(zip(kinds, linears, gates, strict=True))
        ]
        for gate in gates:
            gate.logits = {k: v.detach().to(self.device, dtype).requires_grad_(True) for k, v in gate.logits.items()}
        self.numels = torch.tensor([linear.weight.numel() for linear in linears], dtype=torch.float64)
        sizes = [size_of(layer.weight(), regulariser.absolute) for layer in self.layers]
        self.dense_sizes = torch.stack(sizes).double().cpu()
        parameters = [leaf for gate in gates for leaf in gate.logits.values()]
        betas = (self.options.beta1, self.options.beta2)
        self.optimizer = AdamW(parameters, betas, self.options.weight_decay, DTYPES[self.options.state_dtype])
        self.rows: list[dict[str, float]] = []

    def train(self, facts: dict[str, Any]) -> PrunedCell:
        """Train to the end; "<name>.<kind>" per matrix, one log row per step, and `facts` for the manifest."""
        self.run(self.checkpoints)
        tensors = {
            f"{layer.linear.name}.{kind}": tensor
            for layer in self.layers
            for kind, tensor in layer.gate.results().items()
        }
        return PrunedCell(tensors, self.rows, facts)

    def language_loss(self, tokens_BT: Tensor) -> Tensor:
        """Mean next-token cross-entropy of the model as it stands."""
        return next_token_loss(self.model(tokens_BT, use_cache=False).logits, tokens_BT)

    def step(self, number: int) -> dict[str, float]:
        """One optimiser step, without any state but the logits and the optimiser's moments; returns its log row."""
        options = self.options
        anew = options.noise == "forward"
        remake, absolute = options.gradient_checkpointing, self.regulariser.absolute
        step = Step(self.seed, number, options.relaxation(number), remake=remake, anew=anew, absolute=absolute)
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
        """Set every logit's gradient; returns L_LM over the batch, the relaxed density and the regulariser's terms."""
        rounds = self._micro_batches(step.number)
        share = 1 / (len(rounds) * processes.count())
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
                loss.backward()
                losses += [part.item() for part in processes.in_rank_order(loss.detach())]
        density, *terms = self._of_all_masks(torch.tensor(measured, dtype=torch.float64).sum(dim=0), step)
        return sum(losses), density, terms

    def _of_all_masks(self, measured: Tensor, step: Step) -> list[float]:
        """What was measured, and the logits' gradients, summed over the processes where each had masks of its own."""
        if not step.anew:
            return measured.tolist()
        if processes.count() > 1:
            for leaf in self.optimizer.parameters:
                leaf.grad = sum(processes.in_rank_order(leaf.grad))
        return sum(processes.in_rank_order(measured)).tolist()

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
            progress.report(self.rows[-1])
            if checkpoints and (number + 1) % self.options.checkpoint_steps == 0 and number + 1 < self.options.steps:
                self._save(checkpoints)
        return self.rows

    def _state(self) -> dict[str, Tensor]:
        """Every tensor that a step reads and changes, by name: logits and moments."""
        logits = {f"{layer.index}.{kind}": leaf for layer in self.layers for kind, leaf in layer.gate.logits.items()}
        parts = {"logits": list(logits.values()), "first": self.optimizer.first, "second": self.optimizer.second}
        return {
            f"{name}.{part}": tensor
            for part, found in parts.items()
            for name, tensor in zip(logits, found, strict=True)
        }

    def _save(self, folder: Path) -> None:
        """Write logits, moments and the log so far; one process writes for all."""
        if processes.rank() == 0:
            rows = torch.tensor([[row[name] for name in LOG_COLUMNS] for row in self.rows], dtype=torch.float64)
            checkpoint.save(folder, len(self.rows), {**self._state(), "log": rows})

    def _resume(self, folder: Path | None) -> int:
        """Load the newest whole state in `folder`, if any; the number of steps already done."""
        saved = checkpoint.newest(folder) if folder else None
        done = len(saved["log"]) if saved else 0
        processes.agree(f"the checkpoint in {folder}", done)
        if saved is None:
            return 0
        with torch.no_grad():
            for name, tensor in self._state().items():
                tensor.copy_(saved[name])
        rows = (dict(zip(LOG_COLUMNS, row.tolist(), strict=True)) for row in saved["log"])
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
