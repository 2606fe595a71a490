"""Train gate logits on the language-modelling loss with the weights frozen.

Shapes: theta, gates, noise and weights are flat [N] over all prunable weights, tensor after tensor in module order.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from leap_repro.errors import UserError
from leap_repro.models.prunable import prunable_linears
from leap_repro.prune.gates import logistic_noise, relaxed_gates
from leap_repro.seeds import named_seed
from leap_repro.tokens import TokenRows

log = logging.getLogger(__name__)
STATE_FILE = "state.safetensors"
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
"""Per step: L_LM, mean relaxed gate, share of theta > 0, the schedules, lambda1 and lambda2 terms as added, the sum."""


@dataclass(frozen=True)
class Options:
    """Hyperparameters of mask training; the defaults are those of the LEAP paper's code.

    steps, batch_size (sequences per step), micro_batch_size (sequences per forward), learning_rate, warmup_steps,
    beta1, beta2, tau_start/tau_end and kappa_start/kappa_end (both linear in step), density_weight (lambda 1),
    norm_weight (lambda 2), checkpoint_every (steps).
    """

    steps: int = 2000
    batch_size: int = 256
    micro_batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 5
    beta1: float = 0.9
    beta2: float = 0.95
    tau_start: float = 4.0
    tau_end: float = 0.05
    kappa_start: float = 25.0
    kappa_end: float = 350.0
    density_weight: float = 7.0
    norm_weight: float = 10.0
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        if self.batch_size % self.micro_batch_size:
            raise UserError(
                f"batch_size {self.batch_size} must be a multiple of micro_batch_size {self.micro_batch_size}"
            )


def linear_schedule(start: float, end: float, step: int, steps: int) -> float:
    """From `start` at step 0 to `end` at the last step, linear."""
    return start + (end - start) * step / max(steps - 1, 1)


def learning_rate(options: Options, step: int) -> float:
    """Linear warm-up to the peak, then a half cosine to zero."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(options.steps - options.warmup_steps, 1)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def batch_indices(step: int, batch_size: int, sequences: int, seed: int) -> Tensor:
    """Which sequences step `step` reads: one seeded permutation per pass over the data, no state to save."""
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    passes = positions // sequences
    order = {
        int(p): torch.randperm(sequences, generator=torch.Generator().manual_seed(named_seed("order", seed, int(p))))
        for p in passes.unique()
    }
    return torch.stack([order[int(p)][i % sequences] for p, i in zip(passes, positions, strict=True)])


@dataclass
class MaskedWeights:
    """The frozen weights of all prunable layers as one flat vector, and how to cut it into named matrices."""

    names: list[str]
    shapes: list[torch.Size]
    flat: Tensor

    @classmethod
    def of(cls, model: nn.Module) -> MaskedWeights:
        linears = prunable_linears(model)
        flat = torch.cat([linear.weight.detach().float().flatten() for linear in linears])
        return cls([linear.name for linear in linears], [linear.weight.shape for linear in linears], flat)

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a flat [N] tensor as {name: [out, in]}."""
        parts = flat.split([shape.numel() for shape in self.shapes])
        return {name: part.view(shape) for name, shape, part in zip(self.names, self.shapes, parts, strict=True)}

    def norm_sum(self, flat: Tensor) -> Tensor:
        """The sum over matrices of the Frobenius norm."""
        return torch.stack([matrix.norm() for matrix in self.split(flat).values()]).sum()


class MaskTrainer:
    """One training run of the logits `theta`; `run` yields to nothing outside it but checkpoints and the log."""

    def __init__(
        self,
        model: nn.Module,
        tokens_NT: Tensor | TokenRows,
        theta: Tensor,
        density: float,
        options: Options,
        seed: int,
    ) -> None:
        self.model, self.tokens_NT, self.options, self.seed = model, tokens_NT, options, seed
        self.device = next(model.parameters()).device
        self.weights = MaskedWeights.of(model)
        self.density = density
        self.dense_norm = self.weights.norm_sum(self.weights.flat)
        self.theta = theta.to(self.device).requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            [self.theta], lr=options.learning_rate, betas=(options.beta1, options.beta2), weight_decay=0.0
        )
        self.rows: list[dict[str, float]] = []

    def language_loss(self, matrices: dict[str, Tensor], tokens_BT: Tensor) -> Tensor:
        """Mean next-token cross-entropy of the model with `matrices` in place of its prunable weights."""
        logits = functional_call(self.model, matrices, (tokens_BT,), {"use_cache": False}).logits
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens_BT[:, 1:].flatten())

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step: L_LM + lambda1 |density - target| - lambda2 (1 - t/T) sum||W m|| / sum||W||."""
        options = self.options
        tau = linear_schedule(options.tau_start, options.tau_end, step, options.steps)
        kappa = linear_schedule(options.kappa_start, options.kappa_end, step, options.steps)
        noise = logistic_noise(self.theta.numel(), self.seed, step, self.device)
        gates = relaxed_gates(self.theta, noise, kappa, tau)
        masked = self.weights.flat * gates
        density = gates.mean()
        density_term = options.density_weight * (density - self.density).abs()
        norm_term = -options.norm_weight * (1 - step / options.steps) * self.weights.norm_sum(masked) / self.dense_norm
        loss_lm, gradient = self._accumulate(masked, step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(options, step)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward([masked, density_term + norm_term], [gradient, None])
        self.optimizer.step()
        return {
            "step": step,
            "loss_lm": loss_lm,
            "density_relaxed": density.item(),
            "density_hard": (self.theta > 0).float().mean().item(),
            "tau": tau,
            "kappa": kappa,
            "learning_rate": learning_rate(options, step),
            "density_term": density_term.item(),
            "norm_term": norm_term.item(),
            "loss": loss_lm + density_term.item() + norm_term.item(),
        }

    def _accumulate(self, masked: Tensor, step: int) -> tuple[float, Tensor]:
        """Mean language-modelling loss of the step's batch and its gradient at the masked weights, by micro-batches."""
        leaf = masked.detach().requires_grad_(True)
        matrices = {name: matrix.to(self.model.dtype) for name, matrix in self.weights.split(leaf).items()}
        indices = batch_indices(step, self.options.batch_size, len(self.tokens_NT), self.seed)
        micro_batches = indices.split(self.options.micro_batch_size)
        total = 0.0
        for index, micro in enumerate(micro_batches):
            loss = self.language_loss(matrices, self.tokens_NT[micro].to(self.device)) / len(micro_batches)
            loss.backward(retain_graph=index + 1 < len(micro_batches))
            total += loss.item()
        return total, leaf.grad

    def run(self, checkpoints: Path | None) -> list[dict[str, float]]:
        """Train to the end, resuming from `checkpoints` if it holds a state; returns one log row per step."""
        start = self._resume(checkpoints)
        with tqdm(total=self.options.steps, initial=start, desc="LEAP", mininterval=2.0, dynamic_ncols=True) as bar:
            for step in range(start, self.options.steps):
                row = self.step(step)
                self.rows.append(row)
                bar.set_postfix(loss=f"{row['loss_lm']:.3f}", density=f"{row['density_relaxed']:.3f}", refresh=False)
                bar.update()
                if checkpoints and (step + 1) % self.options.checkpoint_every == 0 and step + 1 < self.options.steps:
                    self._save(checkpoints)
        return self.rows

    def _save(self, folder: Path) -> None:
        """Write theta, Adam's moments and the log so far; the rename makes it whole or absent."""
        folder.mkdir(parents=True, exist_ok=True)
        state = self.optimizer.state[self.theta]
        tensors = {
            "theta": self.theta.detach(),
            "exp_avg": state["exp_avg"],
            "exp_avg_sq": state["exp_avg_sq"],
            "log": torch.tensor([[row[name] for name in LOG_COLUMNS] for row in self.rows], dtype=torch.float64),
        }
        temporary = folder / f".{STATE_FILE}.tmp"
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        temporary.replace(folder / STATE_FILE)

    def _resume(self, folder: Path | None) -> int:
        """Load the state in `folder`, if any; the number of steps already done."""
        path = folder / STATE_FILE if folder else None
        if path is None or not path.is_file():
            return 0
        state = load_file(path)
        done = len(state["log"])
        self.theta.data.copy_(state["theta"])
        self.optimizer.state[self.theta] = {
            "step": torch.tensor(float(done)),
            "exp_avg": state["exp_avg"].to(self.device),
            "exp_avg_sq": state["exp_avg_sq"].to(self.device),
        }
        rows = (dict(zip(LOG_COLUMNS, row.tolist(), strict=True)) for row in state["log"])
        self.rows = [row | {"step": int(row["step"])} for row in rows]
        log.info("resumed after step %d of %d", done, self.options.steps)
        return done
