"""The state of the rows that an iterative solver still works on: finished ones are taken out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class SomeRows:
    """Every field is a tensor with a first dimension of rows; `index` says which of all they are."""

    index: Tensor

    def take(self, which: Tensor) -> Self:
        """Some of the rows."""
        return type(self)(*(getattr(self, field.name)[which] for field in fields(self)))
