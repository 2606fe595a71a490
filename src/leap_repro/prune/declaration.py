"""The declaration of a pruning method: its options, and all that the rest of the package must know about it.

Each file under `prune/methods` ends with `METHOD`, one of the declarations below. The configuration's schema, the
checks before any job, the plan, requests to a cluster, the memory formula and the option tables of docs/methods come
from it. Every dry run reads all declarations, so their files import torch, and what needs torch, inside functions only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from leap_repro.checked import Closed
from leap_repro.errors import UserError
from leap_repro.sparsity.patterns import UNSTRUCTURED

if TYPE_CHECKING:
    from leap_repro.prune.job import Job, PrunedCell

Tokens = Literal["calibration", "mask_training", "mask_training_grouped"] | None
Hardening = Literal["exact", "threshold"]
ANY_SPARSITY = (Fraction(0), Fraction(1))


class Options(Closed):
    """The options of a method: each field with its type, bounds, default and description.

    Properties derive further facts from the chosen options.
    """

    @property
    def facts(self) -> dict[str, str]:
        """The manifest's `pattern` and `budget_scope` (job.py): the constraints that the mask meets."""
        return {"pattern": UNSTRUCTURED, "budget_scope": "tensor"}

    @property
    def sparsity_bounds(self) -> tuple[Fraction, Fraction]:
        """The lowest and the highest sparsity that these options allow."""
        return ANY_SPARSITY

    @property
    def sparsity_words(self) -> str:
        """The reason for the bounds, for an error message; "{options}" stands for the place of these options."""
        least, most = self.sparsity_bounds
        return f"the method allows only [{float(least):g}]" if least == most else f"at most {float(most):g}"

    def operations(self, rows: float, columns: float, kept: float) -> float:
        """Floating-point operations for one matrix whose rows each keep `kept` weights, beyond those that the plan
        counts for every layer-wise method."""
        return 0.0


OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True, kw_only=True)
class Declaration(ABC, Generic[OptionsT]):
    """What a method declares about itself; a method's file ends with one of the derived classes.

    UserError if `options` is not a class derived from Options.

    Attributes:
        options: Its class of options.
        moves_weights: Whether it gives new values to the kept weights.
        selects: Whether it chooses a mask in one shot, which other methods may start from or reconstruct.
        starts: The keys by which it may start from another method's mask: "warm_start", "pattern_start", "selector",
            "parent", "budget_from".
        hardenings: The rules by which its results may become masks.
        is_shared: Whether several processes may compute one cell together.
    """

    options: type[OptionsT]
    moves_weights: bool = False
    selects: bool = False
    starts: tuple[str, ...] = ()
    hardenings: tuple[Hardening, ...] = ("exact",)
    is_shared: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.options, type) and issubclass(self.options, Options)):
            raise UserError(f"options is {self.options!r}; it must be a class derived from {__name__}.Options")

    @property
    def name(self) -> str:
        """Its name in the configuration: the name of its file."""
        return self.options.__module__.rpartition(".")[2]

    @property
    @abstractmethod
    def tokens(self) -> Tokens:
        """The token shard that it reads, or None."""

    def tokens_of(self, options: OptionsT) -> Tokens:
        """The token shard that it reads with these options."""
        return self.tokens

    @property
    def trains(self) -> bool:
        """Whether it trains, so that the whole model must be in memory at once."""
        return self.tokens == "mask_training"

    @property
    def leaves_logits(self) -> bool:
        """Whether it trains masks, and so writes logits that are hardened later."""
        return self.trains and not self.moves_weights

    def prune_cell(self, job: Job[OptionsT]) -> PrunedCell:
        """Prune `job.model`; UserError for a sparsity that the options do not allow."""
        refuse_sparsity([job.sparsity], job.options, f"{self.name}: sparsity is {float(job.sparsity):g}", "options")
        return self.run(job)

    @abstractmethod
    def run(self, job: Job[OptionsT]) -> PrunedCell:
        """Prune `job.model`, whose sparsity was checked."""


def refuse_sparsity(sparsities: list[Fraction], options: Options, subject: str, place: str) -> None:
    """UserError, "<subject>; <reason>", if `options`, which are at `place`, do not allow one of the sparsities."""
    least, most = options.sparsity_bounds
    if any(not least <= sparsity <= most for sparsity in sparsities):
        raise UserError(f"{subject}; {options.sparsity_words.format(options=place)}")
