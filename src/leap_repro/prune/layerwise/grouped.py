"""Methods whose weights may compete in the whole matrix or within each output row: their option, how it selects."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from leap_repro.checked import contradiction
from leap_repro.prune.layerwise.declaration import CalibratedOptions
from leap_repro.prune.layerwise.select import drop_smallest_in_matrix, drop_smallest_in_rows

EXACT_IN = {"matrix": drop_smallest_in_matrix, "row": drop_smallest_in_rows}
"""By the option `group`: where weights compete."""


class GroupedOptions(CalibratedOptions):
    """`group` names the weights that compete; with an N:M pattern they are the pattern's groups."""

    group: Literal["matrix", "row"] = Field(
        "matrix", description="which weights compete; matrix: all of the matrix; row: those of an output row"
    )

    @model_validator(mode="after")
    def _a_pattern_is_a_group_of_its_own(self) -> GroupedOptions:
        if self.n_of_m and self.group != "matrix":
            raise contradiction("group", repr(self.group), f"the pattern {self.pattern!r} allows only 'matrix'")
        return self
