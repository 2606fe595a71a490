"""The contract of a pruning method: what one cell's job is given, and what it gives back (`declaration.py` says what a
method is)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.models.stream import Residency, always_resident
from leap_repro.prune.declaration import Declaration, Options, OptionsT
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.sparsity.masks import read_kept_values, unpack_masks
from leap_repro.store.artifacts import Artifact
from leap_repro.store.tensor_files import TensorFolder, TensorsInMemory
from leap_repro.store.tokens import TokenRows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Selector:
    """Another method and its options: whose mask a reconstruction completes."""

    method: Declaration
    options: Options


@dataclass(frozen=True)
class Parent:
    """The hardened `cell` that a method goes on from: its masks, and what stays of the matrices whose weights it moved
    [kept]; `promises` are its manifest's `pattern`, `budget_scope` and `neighbours`, which `harden` checks again."""

    cell: str
    masks: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    promises: dict[str, Any]
    sparsity: str
    manifest_sha256: str

    @classmethod
    def of(cls, cell: Artifact) -> Parent:
        """Of a cell on disk; UserError if a file is damaged."""
        facts = cell.facts
        promises = {name: facts[name] for name in ("pattern", "budget_scope", "neighbours")}
        masks, values = unpack_masks(cell), read_kept_values(cell)
        return cls(facts["cell"], masks, values, promises, facts["sparsity"], cell.manifest_sha256)

    def require_fits(self, names: Iterable[str], sparsity: Fraction) -> None:
        """UserError unless the cell was made for a model with these prunable matrices, and at this sparsity."""
        if set(self.masks) != set(names):
            raise UserError(
                f"cell {self.cell} was made for another model: its tensors are not this model's prunable ones"
            )
        if parse_sparsity(self.sparsity) != sparsity:
            raise UserError(f"cell {self.cell} has sparsity {self.sparsity}; it must be {float(sparsity):g}")


def read_budgets(cell: Artifact, sparsity: Fraction) -> dict[str, Fraction]:
    """The sparsity of every matrix in a hardened `cell`, exactly; UserError for a cell of another sparsity."""
    facts = cell.facts
    if parse_sparsity(facts["sparsity"]) != sparsity:
        raise UserError(f"cell {facts['cell']} has sparsity {facts['sparsity']}; it must be {float(sparsity):g}")
    return {row["tensor"]: 1 - Fraction(row["kept"], row["numel"]) for row in facts["tensors"]}


@dataclass(frozen=True)
class Job(Generic[OptionsT]):
    """One cell. `tokens` is int64 [sequences, length] or such rows, read when indexed; `warm_start` maps tensor names
    to bool masks; `held_out` are tokens that are only looked at; `budgets` gives each tensor a sparsity of its own;
    `parent` is a whole cell of another method; `reconstruct` gets each matrix's original layer (with its Gram matrix)
    and what the method made of it, and has the last word; `residency` brings a block of `model` into memory, and
    `store` takes its results as soon as it is pruned."""

    model: PreTrainedModel
    options: OptionsT
    sparsity: Fraction
    seed: int
    tokens: Tensor | TokenRows | None = None
    warm_start: Mapping[str, Tensor] | None = None
    pattern_start: Mapping[str, Tensor] | None = None
    held_out: Tensor | TokenRows | None = None
    budgets: Mapping[str, Fraction] | None = None
    parent: Parent | None = None
    checkpoints: Path | None = None
    selector: Selector | None = None
    reconstruct: Callable[[Layer, PrunedLayer], PrunedLayer] | None = None
    residency: Residency = always_resident
    store: TensorFolder | TensorsInMemory = field(default_factory=TensorsInMemory)

    def required_tokens(self) -> Tensor | TokenRows:
        """The token shard; UserError if the job was started without one."""
        if self.tokens is None:
            raise UserError("this method uses data: it needs tokens")
        return self.tokens


@dataclass(frozen=True)
class PrunedCell:
    """`tensors` are "<name>.keep" (bool) and "<name>.values" if the method moves weights, or the logits of
    learned gates: "<name>.logits" per weight, "<name>.patterns" per 2:4 pattern and group, "<name>.tiles" per tile;
    `log` has one row per tensor (layer-wise) or per step (learned); `facts` go into the manifest; harden obeys them:

    * `pattern`: "unstructured", or a name that `sparsity.patterns.parse_pattern` reads ("2:4", "2:4+dense-tiles-128");
    * `budget_scope`: what keeps its share exactly: every "tensor", all together ("global"), the nearest number of
      "tiles", or "none" (an as-released rounding: the counts are recorded, nothing is promised).
    """

    tensors: Mapping[str, Tensor]
    log: list[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=lambda: {"pattern": "unstructured", "budget_scope": "tensor"})
