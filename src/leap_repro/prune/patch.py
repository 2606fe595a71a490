"""PATCH (arXiv 2509.23410): learn which tiles of a matrix stay dense and which become 2:4, end to end.

    min over theta of  E_M[ L_LM(W * M) ] + lambda1 |mean(M) - d| - lambda2 (1 - t/T) sum ||W * M||_F / sum ||W||_F

with M = T + (1 - T) M24 (`gates_tile.py`). Tile freezes M24, a one-shot 2:4 mask; Joint learns it too, with MaskLLM's
gates. Whole tiles cannot meet every budget to the weight: hardening takes the number of dense tiles that comes nearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.models.prunable import prunable_linears
from leap_repro.patterns import DENSE_TILES, TWO_FOUR
from leap_repro.prune.gates import LOGIT_STD, Gate, Relaxation
from leap_repro.prune.gates_pattern import PatternGate, pattern_logits
from leap_repro.prune.gates_tile import TileGate, tile_logits
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.regularise import BudgetAndNorms
from leap_repro.prune.trainer import MaskTrainer
from leap_repro.prune.training import TrainingOptions, one_of

WHOLE_MODEL = True
"""The loss looks at the whole model at once: it is not streamed from disk."""


@dataclass(frozen=True)
class Options(TrainingOptions):
    """PATCH's own, with Tile's values as defaults: learn ("tile": a frozen 2:4 mask, or "joint"), tile (its side, a
    multiple of 4), density_weight (lambda 1), norm_weight (lambda 2), pattern_kappa_start/end (of Joint's masks)."""

    learn: str = "tile"
    tile: int = 128
    learning_rate: float = 1e-4
    kappa_start: float = 100.0
    kappa_end: float = 500.0
    pattern_kappa_start: float = 100.0
    pattern_kappa_end: float = 500.0
    density_weight: float = 3.0
    norm_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("learn", self.learn, ("tile", "joint"))
        if self.tile % 4:
            raise UserError(f"tile is {self.tile}; it must be a multiple of 4, so that tiles hold whole 2:4 groups")

    def relaxation(self, step: int) -> Relaxation:
        base = super().relaxation(step)
        kappa = self.scheduled(self.kappa_schedule, self.pattern_kappa_start, self.pattern_kappa_end, step)
        return Relaxation(base.kappa, base.tau, kappa, base.hard)


def prune_cell(job: Job) -> PrunedCell:
    """Train the tiles; "<name>.tiles" with "<name>.keep" (Tile's 2:4 mask) or "<name>.patterns" (Joint) per matrix."""
    if job.sparsity > TWO_FOUR.sparsity:
        raise UserError(f"patch drops at most half of the weights: sparsity {float(job.sparsity):g} is above 0.5")
    pattern = f"{TWO_FOUR}{DENSE_TILES}{job.options.tile}"
    return trainer(job).train({"pattern": pattern, "budget_scope": "tiles"})


def trainer(job: Job) -> MaskTrainer:
    """A tile gate per matrix over a frozen or learned 2:4 mask, and the budget with the norms as regulariser."""
    options, density = job.options, float(1 - job.sparsity)
    linears = prunable_linears(job.model)
    shapes = [tuple(linear.weight.shape) for linear in linears]
    starts = [job.warm_start[linear.name] for linear in linears] if job.warm_start is not None else None
    tiles = tile_logits(shapes, options.tile, starts, density, job.seed)
    gates: list[Gate] = []
    for index, (linear, shape, theta) in enumerate(zip(linears, shapes, tiles, strict=True)):
        two_four = _two_four(job, linear.name, shape, index)
        gates.append(TileGate(shape, options.tile, theta, two_four))
    return MaskTrainer(job, gates, BudgetAndNorms(density, options.density_weight, options.norm_weight))


def _two_four(job: Job, name: str, shape: tuple[int, int], index: int) -> Tensor | PatternGate:
    start: Mapping[str, Tensor] | None = job.pattern_start
    if job.options.learn == "joint":
        mask = start[name] if start is not None else None
        return PatternGate(pattern_logits(name, shape, mask, job.seed, index, LOGIT_STD))
    if start is None:
        raise UserError("patch with learn: tile freezes a 2:4 mask: it needs --pattern-start")
    return start[name]
