"""How one pruned tensor lies in an export's file: dense with zeros, or without; docs/export-formats.md has the layouts.

A compressed form parts a tensor into several, each with a suffix of its own behind the tensor's name, and puts them
together again to the same bits: what was dropped is +0, what was kept is as it was, a kept -0 included.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.sparsity.masks import pack, unpack

DENSE = "dense"
CODES = 127
"""The largest code of a quantised weight; the smallest is -127, so that codes are symmetric."""
TINY = torch.finfo(torch.float64).tiny
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""{bytes of a number: the whole numbers of that size}: the next larger positive float has the next number's bits."""


class Form(ABC):
    """A compressed form: its name on the command line, and the suffixes of its parts."""

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]

    @abstractmethod
    def encode(self, name: str, tensor: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """{part: tensor} of a tensor that is zero wherever the bool `mask` of its shape is; UserError, which says
        `name`, if the form cannot hold it."""

    @abstractmethod
    def decode(self, parts: dict[str, Tensor], shape: list[int]) -> Tensor:
        """The tensor of `shape`; ValueError or RuntimeError if the parts do not fit together."""


class Packed(Form):
    """`kept`: the values that stay, in the tensor's order; `mask`: one bit a weight, the first in the highest bit."""

    name = "packed"
    parts = ("kept", "mask")

    def encode(self, name: str, tensor: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Any tensor, any mask."""
        return {"kept": tensor[mask], "mask": pack(mask)}

    def decode(self, parts: dict[str, Tensor], shape: list[int]) -> Tensor:
        """ValueError unless there is a value for each bit that is set."""
        mask, kept = _mask(parts, shape), parts["kept"]
        return torch.zeros(shape, dtype=kept.dtype).masked_scatter_(mask, kept)


class PackedInt8(Form):
    """As `Packed`, with `kept` in int8 and `scales`, one for each row (each setting of all indices but the last), in
    the tensor's own type: a weight is its code times its row's scale; the largest of a row has the code 127 or -127.

    Symmetric rounding to the nearest code: what was dropped is no code at all, and so stays 0.
    """

    name = "packed"
    parts = ("kept", "mask", "scales")

    def encode(self, name: str, tensor: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Any tensor, any mask."""
        rows, keep = tensor.reshape(-1, tensor.shape[-1]), mask.reshape(-1, mask.shape[-1])
        scales = _scales(rows.abs().amax(dim=1))
        steps = rows.double() / scales.double().clamp(min=TINY)[:, None]
        return {"kept": steps.round().to(torch.int8)[keep], "mask": pack(mask), "scales": scales}

    def decode(self, parts: dict[str, Tensor], shape: list[int]) -> Tensor:
        """The rounded weights in the type of the scales; ValueError unless there is a code for each bit and a scale for
        each row."""
        mask, kept, scales = _mask(parts, shape), parts["kept"], parts["scales"]
        if kept.dtype != torch.int8 or not scales.is_floating_point() or scales.shape != (math.prod(shape[:-1]),):
            raise ValueError(f"{kept.dtype} values, {scales.dtype} scales {list(scales.shape)} for the shape {shape}")
        wide = torch.promote_types(scales.dtype, torch.float32)
        each = scales.to(wide).repeat_interleave(mask.reshape(-1, shape[-1]).sum(dim=1))
        weights = (kept.to(wide) * each).to(scales.dtype)
        return torch.zeros(shape, dtype=scales.dtype).masked_scatter_(mask, weights)


def _scales(largest: Tensor) -> Tensor:
    """A row's largest weight over 127, rounded up in its type, so that no code is beyond it."""
    exact = largest.double() / CODES
    scales = exact.to(largest.dtype)
    above = (scales.view(BITS[scales.element_size()]) + 1).view(scales.dtype)
    return torch.where(scales.double() < exact, above, scales)


def _mask(parts: dict[str, Tensor], shape: list[int]) -> Tensor:
    """The bool mask of `shape`; ValueError unless it has its length and keeps as many as there are values."""
    if parts["mask"].numel() != -(-math.prod(shape) // 8):
        raise ValueError(f"{parts['mask'].numel()} bytes of mask for the shape {shape}")
    mask, kept = unpack(parts["mask"], shape), parts["kept"]
    if int(mask.sum()) != kept.numel():
        raise ValueError(f"{kept.numel()} values for a mask that keeps {int(mask.sum())}")
    return mask


class TwoFour(Form):
    """What `torch.sparse.to_sparse_semi_structured` makes by its CUTLASS backend: `values` [out, in / 2], the two of
    each four inputs that stay, and `meta`, int16 [out, in / 16], their places in 2 bits each, in the kernel's order.

    The 2 bits come from torch's own conversion, of the mask instead of the weights: a kept weight that is 0 stays.
    """

    name = "2:4"
    parts = ("values", "meta")
    ROWS, COLUMNS = 32, 64

    def encode(self, name: str, tensor: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """A matrix of half precision that keeps two of each four consecutive inputs."""
        from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass as from_dense

        self._refuse(name, tensor, mask)
        _, meta = from_dense(mask.to(tensor.dtype))
        return {"values": tensor[mask].view(len(tensor), -1), "meta": meta}

    def decode(self, parts: dict[str, Tensor], shape: list[int]) -> Tensor:
        """RuntimeError, by torch, if values and places do not fit together."""
        from torch.sparse._semi_structured_conversions import sparse_semi_structured_to_dense_cutlass as to_dense

        return to_dense(parts["values"], parts["meta"]).view(shape)

    def _refuse(self, name: str, tensor: Tensor, mask: Tensor) -> None:
        if tensor.dtype not in (torch.float16, torch.bfloat16):
            words = "must be float16 or bfloat16 (--dtype converts)"
            raise UserError(f"{name} is of type {tensor.dtype}: 2:4 matrices {words}")
        if tensor.dim() != 2 or tensor.shape[0] % self.ROWS or tensor.shape[1] % self.COLUMNS:
            words = f"must have a multiple of {self.ROWS} rows and of {self.COLUMNS} columns (--format packed: any)"
            raise UserError(f"{name} is {list(tensor.shape)}: 2:4 matrices {words}")
        if not bool((mask.view(len(mask), -1, 4).sum(dim=2) == 2).all()):
            raise UserError(
                f"{name} does not keep two of each four inputs: --format 2:4 needs a mask of the pattern 2:4"
            )


FORMS: dict[str, Form] = {form.name: form for form in (Packed(), TwoFour())}
QUANTISED: dict[str, Form] = {"int8": PackedInt8()}
"""What the values of the format `packed` may be instead of the tensor's own."""


def form_of(name: str, values: str | None = None) -> Form:
    """The form of a format, with its values as they are or quantised; UserError for what there is none of."""
    if values is None and name in FORMS:
        return FORMS[name]
    if values in QUANTISED and name == Packed.name:
        return QUANTISED[values]
    raise UserError(f"--values is {values!r} with --format {name}; {[*QUANTISED]} need --format {Packed.name}")
