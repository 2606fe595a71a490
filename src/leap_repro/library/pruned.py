"""A model that was pruned: which weights stay, their new values, and what the pruner said. It holds no model's weights
but those that a method changed, and lies in files of its own, as a hardened cell of the pipeline does."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from torch import Tensor, nn

from leap_repro.errors import UserError
from leap_repro.evaluate.rows import dropped_shares
from leap_repro.library.base import Base
from leap_repro.models.cell import apply_cell
from leap_repro.models.prunable import prunable_linears
from leap_repro.prune.run import LOG
from leap_repro.sparsity.masks import read_kept_values, unpack_masks
from leap_repro.store.artifacts import Artifact

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def require_fits(cell: Artifact, model: nn.Module) -> None:
    """UserError unless the cell's matrices are the prunable ones of the model, by name and shape."""
    own = {linear.name: list(linear.weight.shape) for linear in prunable_linears(model)}
    if own != {row["tensor"]: row["shape"] for row in cell.facts["tensors"]}:
        name = cell.facts["cell"]
        raise UserError(f"cell {name} was made for another model: its matrices are not this model's prunable ones")


@dataclass(frozen=True)
class PrunedModel:
    """What `prune_model` returns. Its files lie in a temporary folder that is deleted with it: `export_model` makes a
    checkpoint that stays. `cell` and `pruned` are those files, `base` is what was pruned, `tokens` how many sequences
    of how many tokens the method read."""

    cell: Artifact = field(repr=False)
    pruned: Artifact = field(repr=False)
    base: Base
    tokens: tuple[int, int] | None
    parameters: dict[str, Any]
    folder: tempfile.TemporaryDirectory[str] = field(repr=False)

    @cached_property
    def masks(self) -> Mapping[str, Tensor]:
        """{tensor name: bool [out, in], True where the weight stays}, each unpacked whenever it is asked for."""
        return unpack_masks(self.cell)

    @cached_property
    def values(self) -> Mapping[str, Tensor]:
        """{tensor name: [kept]}: the weights that stay, in the mask's order; empty if the method moved none."""
        return read_kept_values(self.cell)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """{tensor name: (weights that stay, weights)}."""
        return {row["tensor"]: (row["kept"], row["numel"]) for row in self.cell.facts["tensors"]}

    @property
    def kept(self) -> int:
        """How many prunable weights stay."""
        return self.cell.facts["kept"]

    @property
    def prunable(self) -> int:
        """How many prunable weights there are."""
        return self.cell.facts["prunable"]

    @property
    def sparsity(self) -> float:
        """The share of the prunable weights that is dropped, as counted."""
        return 1 - self.kept / self.prunable

    @property
    def shares(self) -> dict[str, float]:
        """The share that is dropped of the prunable weights, of all in the decoder blocks, and of the model's."""
        return dropped_shares(self.base.shares, self.kept)

    @property
    def bits(self) -> str:
        """Whether it was computed with "portable" or "native" kernels."""
        return self.parameters["bits"]

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifests say: pattern, budget, rule of hardening, and what the method noted."""
        return self.pruned.facts | self.cell.facts

    @property
    def log(self) -> list[dict[str, Any]]:
        """A row per matrix, or per step of a training."""
        return pq.read_table(self.pruned.file(LOG)).to_pylist()

    def apply(self, model: PreTrainedModel) -> int:
        """Write zeros and new values into `model`, in place; returns how many prunable weights stay.

        Raises UserError if the masks were made for another model.
        """
        require_fits(self.cell, model)
        return apply_cell(model, self.cell)

    def load(self) -> PreTrainedModel:
        """The pruned model, dense in memory: its base, loaded or copied, with zeros and new values in it."""
        model = self.base.loaded()
        self.apply(model)
        return model
