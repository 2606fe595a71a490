"""PATCH (arXiv 2509.23410): learn which tiles of a matrix stay dense and which become 2:4, end to end.

    min over theta of  E_M[ L_LM(W * M) ] + lambda1 |mean(M) - d| - lambda2 (1 - t/T) sum ||W * M||_F / sum ||W||_F

with M = T + (1 - T) M24 (`gates_tile.py`). Tile freezes M24, a one-shot 2:4 mask; Joint learns it too, with MaskLLM's
gates. Whole tiles cannot meet every budget to the weight: hardening takes the number of dense tiles that comes nearest.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from leap_repro.checked import LearningRate, Rate, Weight, told
from leap_repro.errors import UserError
from leap_repro.prune.learned.declaration import Learned, Relaxation, TrainingOptions, scheduled
from leap_repro.sparsity.patterns import DENSE_TILES, TWO_FOUR

if TYPE_CHECKING:
    from torch import Tensor

    from leap_repro.prune.job import Job
    from leap_repro.prune.learned.gates_pattern import PatternGate
    from leap_repro.prune.learned.trainer import MaskTrainer


class Options(TrainingOptions):
    """PATCH-Tile's own defaults, where they differ from LEAP's: the paper's, or the public code's if the paper has
    none."""

    learn: Literal["tile", "joint"] = Field(
        "tile", description="tile: the tiles over a frozen 2:4 mask; joint: the 2:4 mask too"
    )
    tile: Annotated[int, Field(ge=4, multiple_of=4), told("it must be a multiple of 4")] = Field(
        128, description="side of a square tile; tiles at the edges are smaller"
    )
    learning_rate: LearningRate = Field(1e-4, description="peak value; a half cosine follows")
    kappa_start: Rate = Field(100.0, description="scale of the tiles' logits at the first step")
    kappa_end: Rate = Field(500.0, description="scale of the tiles' logits at the last step")
    pattern_kappa_start: Rate = Field(100.0, description="scale of the logits of Joint's 2:4 masks at the first step")
    pattern_kappa_end: Rate = Field(500.0, description="scale of the logits of Joint's 2:4 masks at the last step")
    prior: Literal["matrix", "model"] = Field(
        "matrix",
        description="ranking of tiles for the warm start; matrix: within each matrix; model: over all matrices "
        "together",
    )
    start_draw: bool = Field(
        True, description="true: Joint's 2:4 logits start as a normal draw plus the prior; false: as the prior alone"
    )
    density_weight: Weight = Field(3.0, description="λ₁, weight of the distance to the target density")
    gradient_clip: Weight = Field(1.0, description="largest norm of the gradient of all logits; 0: no clipping")
    norm_weight: Weight = Field(0.1, description="λ₂, weight of the kept share of the weights' norms")

    @property
    def facts(self) -> dict[str, str]:
        """2:4 except in dense tiles, whose number brings the total nearest to the budget."""
        return {"pattern": f"{TWO_FOUR}{DENSE_TILES}{self.tile}", "budget_scope": "tiles"}

    @property
    def sparsity_bounds(self) -> tuple[Fraction, Fraction]:
        return Fraction(0), TWO_FOUR.sparsity

    @property
    def sparsity_words(self) -> str:
        return "2:4 tiles drop at most 0.5"

    @property
    def logits_per_weight(self) -> float:
        """Six per group of four where the 2:4 masks are learned; those of the tiles are too few to count."""
        return 6 / 4 if self.learn == "joint" else 0.0

    @property
    def frozen_mask_bytes(self) -> int:
        """Tile's 2:4 mask."""
        return int(self.learn == "tile")

    def relaxation(self, step: int) -> Relaxation:
        """With a scale of its own for Joint's 2:4 masks."""
        start, end = self.pattern_kappa_start, self.pattern_kappa_end
        kappa = scheduled(self.kappa_schedule, start, end, self.progress(step))
        return super().relaxation(step)._replace(pattern_kappa=kappa)


def trainer(job: Job[Options]) -> MaskTrainer:
    """A tile gate per matrix over a frozen or learned 2:4 mask, and the budget with the norms as regulariser."""
    from leap_repro.models.prunable import prunable_linears
    from leap_repro.prune.learned.gates_tile import TileGate, tile_logits
    from leap_repro.prune.learned.regularise import BudgetAndNorms
    from leap_repro.prune.learned.trainer import MaskTrainer

    options, density = job.options, float(1 - job.sparsity)
    linears = prunable_linears(job.model)
    shapes = [(linear.weight.shape[0], linear.weight.shape[1]) for linear in linears]
    starts = [job.warm_start[linear.name] for linear in linears] if job.warm_start is not None else None
    tiles = tile_logits(shapes, options.tile, starts, density, job.seed, options.prior == "matrix")
    gates = (
        TileGate(shape, options.tile, theta, _two_four(job, linear.name, shape, index))
        for index, (linear, shape, theta) in enumerate(zip(linears, shapes, tiles, strict=True))
    )
    return MaskTrainer(job, gates, BudgetAndNorms(density, options.density_weight, options.norm_weight))


def _two_four(job: Job[Options], name: str, shape: tuple[int, int], index: int) -> Tensor | PatternGate:
    from leap_repro.prune.learned.gates import LOGIT_STD
    from leap_repro.prune.learned.gates_pattern import PatternGate, pattern_logits

    start = job.pattern_start
    if job.options.learn == "joint":
        mask = start[name] if start is not None else None
        return PatternGate(pattern_logits(name, shape, mask, job.seed, index, LOGIT_STD, job.options.start_draw))
    if start is None:
        raise UserError("patch with learn: tile freezes a 2:4 mask: it needs --pattern-start")
    return start[name]


METHOD = Learned(trainer, options=Options, starts=("warm_start", "pattern_start"), hardenings=("exact", "threshold"))
