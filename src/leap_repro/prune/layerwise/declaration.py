"""Declarations of layer-wise methods, and the options that all methods share which choose a mask layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from leap_repro.checked import Count, Positive, contradiction
from leap_repro.errors import UserError
from leap_repro.prune.declaration import Declaration, Options, OptionsT, Tokens
from leap_repro.prune.layerwise.asked import require_asked_for
from leap_repro.sparsity.patterns import UNSTRUCTURED, Pattern, parse_pattern

if TYPE_CHECKING:
    from leap_repro.prune.job import Job, Parent, PrunedCell
    from leap_repro.prune.layerwise.layer import Layer, PrunedLayer

Needs = Literal["norms", "moments", "gram"] | None


class SelectorOptions(Options):
    """The options of every method that chooses a mask layer by layer."""

    pattern: Literal["unstructured", "2:4", "4:8"] = Field(
        UNSTRUCTURED,
        description="or N:M, in quotes: N of each M consecutive inputs are dropped; only at sparsity N/M",
    )
    rounding: Literal["exact", "as_released"] = Field(
        "exact",
        description="exact: every matrix meets its budget to the weight; as_released: as the method's public code "
        "rounds",
    )

    @property
    def n_of_m(self) -> Pattern | None:
        """The N:M pattern, or None where the mask is unstructured."""
        return parse_pattern(self.pattern)

    @property
    def as_released(self) -> bool:
        """Whether counts are rounded as in the method's public code."""
        return self.rounding == "as_released"

    @property
    def facts(self) -> dict[str, str]:
        """An N:M mask meets its budget however it was rounded."""
        promised = self.n_of_m is not None or not self.as_released
        return {"pattern": self.pattern, "budget_scope": "tensor" if promised else "none"}

    @property
    def sparsity_bounds(self) -> tuple[Fraction, Fraction]:
        return (self.n_of_m.sparsity, self.n_of_m.sparsity) if self.n_of_m else super().sparsity_bounds

    @property
    def sparsity_words(self) -> str:
        return f"{{options}}.pattern is {self.pattern!r}, which allows only [{float(self.sparsity_bounds[0]):g}]"

    @model_validator(mode="after")
    def _blocks_hold_whole_groups(self) -> SelectorOptions:
        block_size = getattr(self, "block_size", None)
        if self.n_of_m and block_size and block_size % self.n_of_m.group:
            whole = f"it must be a multiple of {self.n_of_m.group}, because its pattern is {self.pattern!r}"
            raise contradiction("block_size", block_size, whole)
        return self


class CalibratedOptions(SelectorOptions):
    """The options of every method that chooses a mask layer by layer from statistics of inputs."""

    expert_tokens: Literal["routed", "all"] = Field(
        "routed", description="tokens that an expert of a mixture is calibrated on: those routed to it, or all"
    )
    expert_minimum: Positive = Field(
        1, description="fewest tokens that an expert may be calibrated on; an expert with fewer is refused by name"
    )
    training_sequences: Count = Field(
        0,
        description="number of sequences of the mask-training text to calibrate on, from the first that a training of "
        "the same seed reads; 0: calibrate on the calibration sample",
    )


@dataclass(frozen=True)
class LayerWise(Declaration[OptionsT]):
    """A method that prunes one matrix after another by `rule`.

    Attributes:
        rule: The function that prunes one matrix: (Layer, options) -> PrunedLayer.
        statistics: The statistics of the matrix's inputs that the rule reads: None, "norms", "moments" (norms, means
            and variances) or "gram" (the Gram matrix).
    """

    rule: Callable[[Layer, OptionsT], PrunedLayer]
    _: KW_ONLY
    selects: bool = True
    starts: tuple[str, ...] = ("budget_from",)
    statistics: Needs = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_asked_for(self.rule, self.statistics)

    @property
    def tokens(self) -> Tokens:
        """The calibration sample, if the rule reads statistics of inputs."""
        return "calibration" if self.statistics else None

    def tokens_of(self, options: OptionsT) -> Tokens:
        """The calibration sample, or the mask-training stream with `training_sequences`."""
        own = isinstance(options, CalibratedOptions) and options.training_sequences
        return "mask_training" if self.statistics and own else self.tokens

    def run(self, job: Job[OptionsT]) -> PrunedCell:
        """Prune the whole model, layer by layer."""
        from leap_repro.prune.layerwise.driver import prune_layers

        return prune_layers(job, self.rule, self.statistics, job.options.facts)


@dataclass(frozen=True)
class Reconstruction(Declaration[OptionsT]):
    """A method that gives new values to the weights that another method keeps.

    The other method is its selector, a one-shot method that runs in the same job, or its parent, whose hardened cell
    exists already.

    Attributes:
        rule: The function that reconstructs one matrix: (original Layer, the other method's PrunedLayer, options) ->
            PrunedLayer.
        statistics: The statistics of the matrix's inputs that the rule reads, as in LayerWise.
    """

    rule: Callable[[Layer, PrunedLayer, OptionsT], PrunedLayer]
    _: KW_ONLY
    moves_weights: bool = True
    starts: tuple[str, ...] = ("selector", "parent")
    statistics: Needs = "gram"

    @property
    def tokens(self) -> Tokens:
        """The calibration sample."""
        return "calibration"

    def run(self, job: Job[OptionsT]) -> PrunedCell:
        """Run the selector's driver, or read the parent's masks, with `rule` after each matrix.

        UserError without a selector or a parent, or for a parent of another model or sparsity."""

        def rule(layer: Layer, selected: PrunedLayer) -> PrunedLayer:
            return self.rule(layer, selected, job.options)

        if job.parent is not None:
            return self._of_parent(replace(job, reconstruct=rule), job.parent)
        if job.selector is None:
            raise UserError(
                f"the method {self.name} completes the mask of another method: give it a selector or a parent"
            )
        return job.selector.method.prune_cell(
            replace(job, options=job.selector.options, selector=None, reconstruct=rule)
        )

    def _of_parent(self, job: Job, parent: Parent) -> PrunedCell:
        """UserError for a parent of another model or sparsity."""
        from leap_repro.models.prunable import prunable_linears
        from leap_repro.prune.layerwise.driver import prune_layers
        from leap_repro.prune.layerwise.layer import PrunedLayer
        from leap_repro.sparsity.masks import put

        parent.require_fits((linear.name for linear in prunable_linears(job.model)), job.sparsity)

        def masked(layer: Layer, _: Any) -> PrunedLayer:
            keep, moved = parent.masks[layer.name].to(layer.weight.device), parent.values.get(layer.name)
            put(layer.weight, keep, moved)
            return PrunedLayer(keep, None if moved is None else layer.weight)

        return prune_layers(job, masked, self.statistics, parent.promises)
