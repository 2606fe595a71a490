"""What a pruning method says of itself, once: its options, and whatever the rest of the house must know of it.

Each file under `prune/methods` ends with `METHOD`, one of the declarations below. Config and its schema, the checks
before any job, plan, requests to a cluster, memory formula and the option tables of docs/methods come from it. Every
dry run reads all declarations, so the files that hold them import torch, and what needs torch, inside functions only.
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
    """What a line of `methods:` may set under `options`: each field with its type, bounds, default and one sentence.

    Properties say what follows from the options that were chosen.
    """

    @property
    def facts(self) -> dict[str, str]:
        """The manifest's `pattern` and `budget_scope` (job.py): what the cell's mask promises."""
        return {"pattern": UNSTRUCTURED, "budget_scope": "tensor"}

    @property
    def sparsity_bounds(self) -> tuple[Fraction, Fraction]:
        """The least and the highest sparsity that these options can give."""
        return ANY_SPARSITY

    @property
    def sparsity_words(self) -> str:
        """Why there are such bounds; "{options}" stands for the place of these options."""
        least, most = self.sparsity_bounds
        return f"the method allows only [{float(least):g}]" if least == most else f"at most {float(most):g}"

    def operations(self, rows: float, columns: float, kept: float) -> float:
        """Floating point operations for one matrix of which each row keeps `kept` weights, beyond what the plan counts
        for every layer-wise method."""
        return 0.0


OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True, kw_only=True)
class Declaration(ABC, Generic[OptionsT]):
    """One method. `options` is its class of options; `moves_weights` whether it gives new values to the weights that
    stay; `selects` whether it chooses a mask in one shot, which others may start from or reconstruct; `starts` which
    other lines' masks it takes up ("warm_start", "pattern_start", "selector", "parent"); `hardenings` how its results
    may become masks; `is_shared` whether several processes may make a cell together."""

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
        """What the config calls it: its file."""
        return self.options.__module__.rpartition(".")[2]

    @property
    @abstractmethod
    def tokens(self) -> Tokens:
        """The token shard that it reads."""

    def tokens_of(self, options: OptionsT) -> Tokens:
        """The token shard that it reads with these options."""
        return self.tokens

    @property
    def trains(self) -> bool:
        """Whether it trains, for which the whole model must be in memory at once."""
        return self.tokens == "mask_training"

    @property
    def leaves_logits(self) -> bool:
        """Whether what it trains are masks: it leaves logits, which hardening makes masks of."""
        return self.trains and not self.moves_weights

    def prune_cell(self, job: Job[OptionsT]) -> PrunedCell:
        """Prune `job.model`; UserError for a sparsity that the options cannot give."""
        refuse_sparsity([job.sparsity], job.options, f"{self.name}: sparsity is {float(job.sparsity):g}", "options")
        return self.run(job)

    @abstractmethod
    def run(self, job: Job[OptionsT]) -> PrunedCell:
        """What `prune_cell` does after its check."""


def refuse_sparsity(sparsities: list[Fraction], options: Options, subject: str, place: str) -> None:
    """UserError, "<subject>; <why>", if a sparsity lies outside what `options`, which stand at `place`, allow."""
    least, most = options.sparsity_bounds
    if any(not least <= sparsity <= most for sparsity in sparsities):
        raise UserError(f"{subject}; {options.sparsity_words.format(options=place)}")
