"""`PrunedModel`: the masks of a pruned model, new values of kept weights, and the log.

It has no weights that the method did not change. Its files have the form of a hardened cell of the pipeline.
"""

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
    """The result of `prune_model`.

    Its files are in a temporary folder that is deleted with the object; `export_model` writes a checkpoint that stays.

    Attributes:
        cell: The files of the hardened masks.
        pruned: The files that the method wrote, with its log.
        base: The model that was pruned.
        tokens: (sequences, length) of the tokens that the method read, or None.
        parameters: Method, options and all else that decided the result.
        folder: The temporary folder of the files.
    """

    cell: Artifact = field(repr=False)
    pruned: Artifact = field(repr=False)
    base: Base
    tokens: tuple[int, int] | None
    parameters: dict[str, Any]
    folder: tempfile.TemporaryDirectory[str] = field(repr=False)

    @cached_property
    def masks(self) -> Mapping[str, Tensor]:
        """{tensor name: bool [out, in], True where the weight is kept}; each mask is unpacked on access."""
        return unpack_masks(self.cell)

    @cached_property
    def values(self) -> Mapping[str, Tensor]:
        """{tensor name: [kept]}: values of the kept weights in the mask's order; empty if the method changed none."""
        return read_kept_values(self.cell)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """{tensor name: (number of kept weights, number of weights)}."""
        return {row["tensor"]: (row["kept"], row["numel"]) for row in self.cell.facts["tensors"]}

    @property
    def kept(self) -> int:
        """The number of prunable weights that are kept."""
        return self.cell.facts["kept"]

    @property
    def prunable(self) -> int:
        """The number of prunable weights."""
        return self.cell.facts["prunable"]

    @property
    def sparsity(self) -> float:
        """The share of the prunable weights that is dropped, counted from the masks."""
        return 1 - self.kept / self.prunable

    @property
    def shares(self) -> dict[str, float]:
        """The dropped shares of the prunable weights, of the decoder blocks' weights and of all weights, by name."""
        return dropped_shares(self.base.shares, self.kept)

    @property
    def bits(self) -> str:
        """The kernels that computed the result: "portable" or "native"."""
        return self.parameters["bits"]

    @property
    def facts(self) -> dict[str, Any]:
        """Facts from the manifests: pattern, scope of the budget, hardening rule, and the method's notes."""
        return self.pruned.facts | self.cell.facts

    @property
    def log(self) -> list[dict[str, Any]]:
        """The method's log: a row per matrix, or per training step."""
        return pq.read_table(self.pruned.file(LOG)).to_pylist()

    def apply(self, model: PreTrainedModel) -> int:
        """Write zeros and new values into `model`, in place, and return the number of kept prunable weights.

        Raises:
            UserError: If the masks were made for another model.
        """
        require_fits(self.cell, model)
        return apply_cell(model, self.cell)

    def load(self) -> PreTrainedModel:
        """The pruned model, dense in memory: the base, loaded or copied, with zeros and new values."""
        model = self.base.loaded()
        self.apply(model)
        return model
