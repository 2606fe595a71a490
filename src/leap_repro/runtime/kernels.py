"""y = W x from the values that a pruned matrix keeps and one bit a weight: the Python face of kernels.c.

For few tokens the kernel reads each value once and never makes a dense matrix; for many, tiles of rows are unpacked
into the cache and torch multiplies them. The kernels have several forms (forms.py); all give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.runtime.forms import TYPES, call, compiled, form, kernel

WORD = 64
ROWS_A_START = 8
MOST_TOKENS = 8
"""Of one call of the kernel."""
FEW_TOKENS = 8
"""Up to so many, a call of the kernel is as fast as unpacking or faster; benchmarks/packed_prefill.md."""
TILE_BYTES = 1 << 22
"""Of the dense rows that are unpacked at once: fewer make the products small, more leave the cache;
benchmarks/packed_prefill.md."""
REVERSED = np.packbits(np.arange(256, dtype=np.uint8)[:, None] >> np.arange(8) & 1).tobytes()
"""Each byte with its bits in the opposite order."""


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """A matrix [rows, columns] without its zeros; construction refuses what does not fit together by UserError.

    `values` [kept] are the kept weights, row after row: float32, bfloat16, float16, or int8 with `scales` float32
    [rows, groups], each for columns / groups neighbours (a multiple of 64 unless there is one group).
    `mask` uint8 [rows, 8 * ceil(columns / 64)] has a bit a weight, the first in the lowest bit, and 0 behind the last.
    """

    values: Tensor
    mask: Tensor
    shape: tuple[int, int]
    scales: Tensor | None = None
    name: str = "matrix"
    starts: Tensor = field(init=False, repr=False)
    """int64, of rows 0, 8, 16, …: how many values stand before them."""

    def __post_init__(self) -> None:
        self._check_tensors()
        if self.scales is not None or self.values.dtype == torch.int8:
            self._check_scales()
        ends = np.cumsum(self._kept_in_rows())
        if ends[-1] != self.values.numel():
            raise UserError(f"{self.name} has {self.values.numel()} values for a mask that keeps {ends[-1]}")
        starts = np.concatenate([np.zeros(1, np.int64), ends[ROWS_A_START - 1 : -1 : ROWS_A_START]])
        object.__setattr__(self, "starts", torch.from_numpy(starts))

    def _check_tensors(self) -> None:
        rows, columns = self.shape
        if rows < 1 or columns < 1:
            raise UserError(f"{self.name} is {rows} x {columns}: a matrix has at least one row and one column")
        if self.values.dtype not in TYPES or self.values.dim() != 1:
            words = "they must be in one dimension and of type float32, bfloat16, float16 or int8"
            raise UserError(f"{self.name}: values are {_described(self.values)}; {words}")
        expected = [rows, _words(columns) * WORD // 8]
        if self.mask.dtype != torch.uint8 or list(self.mask.shape) != expected:
            words = f"for {rows} x {columns} weights it is {expected} of torch.uint8"
            raise UserError(f"{self.name}: the mask is {_described(self.mask)}; {words}")
        for part, tensor in (("values", self.values), ("mask", self.mask), ("scales", self.scales)):
            if tensor is not None and not (tensor.device.type == "cpu" and tensor.is_contiguous()):
                raise UserError(f"{self.name}: {part} must be contiguous and on the CPU")
        if self.mask.data_ptr() % 8 or self.values.data_ptr() % self.values.element_size():
            raise UserError(f"{self.name}: the mask must start at a multiple of 8 bytes, values at one of their size")

    def _check_scales(self) -> None:
        rows, columns = self.shape
        if self.scales is None or self.values.dtype != torch.int8:
            raise UserError(f"{self.name}: int8 values need scales, and no others have them")
        if self.scales.dtype != torch.float32 or self.scales.dim() != 2 or len(self.scales) != rows:
            words = f"they must be [{rows}, groups] of torch.float32"
            raise UserError(f"{self.name}: scales are {_described(self.scales)}; {words}")
        groups = self.scales.shape[1]
        if groups != 1 and (groups == 0 or columns % groups or columns // groups % WORD):
            words = f"a group must be a multiple of {WORD} columns"
            raise UserError(f"{self.name}: {groups} scales a row for {columns} columns; {words}")
        if not bool(self.scales.isfinite().all()):
            raise UserError(f"{self.name}: a scale is not finite")

    def _kept_in_rows(self) -> np.ndarray:
        words = self.mask.numpy().view(np.uint64)
        used = self.shape[1] % WORD
        if used and (words[:, -1] >> np.uint64(used)).any():
            raise UserError(f"{self.name}: the mask has bits behind column {self.shape[1]}")
        return np.bitwise_count(words).sum(axis=1, dtype=np.int64)

    @classmethod
    def from_file(
        cls,
        kept: Tensor,
        bits: Tensor,
        shape: tuple[int, ...] | list[int],
        scales: Tensor | None = None,
        name: str = "matrix",
    ) -> PackedMatrix:
        """From the parts of a packed export (docs/export-formats.md): `kept` stays where it is; the bits are put in the
        kernels' order. Leading dimensions (experts) count as rows."""
        *leading, columns = shape
        rows = math.prod(leading)
        expected = -(-rows * columns // 8)
        if bits.dtype != torch.uint8 or list(bits.shape) != [expected]:
            words = f"for {list(shape)} weights it is [{expected}] of torch.uint8"
            raise UserError(f"{name}: the mask is {_described(bits)}; {words}")
        return cls(kept, _rows_of_bits(bits.numpy(), rows, columns), (rows, columns), scales, name)

    @classmethod
    def from_dense(cls, matrix: Tensor, mask: Tensor | None = None, name: str = "matrix") -> PackedMatrix:
        """The weights of a matrix [rows, columns] where the bool `mask` of its shape is true; without one, where the
        weight is not 0."""
        mask = matrix != 0 if mask is None else mask
        packed = _padded(np.packbits(mask.numpy(), axis=1, bitorder="little"), matrix.shape[1])
        return cls(matrix[mask], packed, (matrix.shape[0], matrix.shape[1]), name=name)

    @property
    def nbytes(self) -> int:
        """Bytes of values, mask, scales and row starts."""
        tensors = (self.values, self.mask, self.starts, self.scales)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def parted(self, places: Sequence[Tensor]) -> list[PackedMatrix]:
        """For each of `places`, numbers of rows [n], the matrix of these rows, an expert for example: a view of the
        same memory where they follow one another, a copy where not."""
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._kept_in_rows())])
        return [self._part(rows, starts) for rows in places]

    def _part(self, rows: Tensor, starts: np.ndarray) -> PackedMatrix:
        """`starts` are the places of each row's first value."""
        first, last = int(rows[0]), int(rows[-1]) + 1
        if torch.equal(rows, torch.arange(first, last)):
            chosen: slice | Tensor = slice(first, last)
            values = self.values[starts[first] : starts[last]]
        else:
            chosen = rows
            values = torch.cat([self.values[starts[row] : starts[row + 1]] for row in rows.tolist()])
        scales = None if self.scales is None else self.scales[chosen]
        return PackedMatrix(values, self.mask[chosen], (len(rows), self.shape[1]), scales, self.name)

    def multiply(self, x: Tensor) -> Tensor:
        """W x for x [..., columns] of float32, bfloat16 or float16: [..., rows] of its type, summed in float32."""
        tokens = _tokens(x, self.shape[1], self.name)
        if form() == "torch" or len(tokens) > FEW_TOKENS:
            y = self._by_tiles(tokens)
        else:
            y = _in_calls(tokens, self._by_kernel)
        return _as_given(y, x)

    def prepared(self) -> Callable[[Tensor], Tensor]:
        """`multiply` for a layer that is called for one token after another: what is the same in every call is looked
        up here, once. The form of the kernels is that of now."""
        if form() == "torch":
            return self.multiply
        rows, columns = self.shape
        run, threads = kernel("multiply"), torch.get_num_threads
        fixed = (compiled()[form()], *self._arguments(0, rows))

        def multiply(x: Tensor) -> Tensor:
            kind = TYPES.get(x.dtype)
            is_one = x.shape[-1] == columns == x.numel() and x.is_cpu and x.is_contiguous() and not x.requires_grad
            if not is_one or x.dtype == torch.float16:  # whose sums are rounded by torch
                return self.multiply(x)
            y = torch.empty((*x.shape[:-1], rows), dtype=x.dtype)
            run(*fixed, x.data_ptr(), kind, 1, y.data_ptr(), kind, threads())
            return y

        return multiply

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The matrix [rows, columns] with its zeros, in the values' type unless `dtype` says another; of int8 the
        scaled weights, float32."""
        own = torch.float32 if self.values.dtype == torch.int8 else self.values.dtype
        dtype = dtype or own
        through = dtype if dtype == torch.bfloat16 else torch.float32
        return self._unpacked(0, self.shape[0], through).to(dtype)

    def _by_kernel(self, tokens: Tensor) -> Tensor:
        """At most MOST_TOKENS."""
        y = _output(tokens, self.shape[0])
        self._run("multiply", 0, self.shape[0], y, tokens)
        return y

    def _by_tiles(self, tokens: Tensor) -> Tensor:
        """Any number of tokens: a tile of rows is unpacked, multiplied, and forgotten."""
        rows, columns = self.shape
        y = _output(tokens, rows)
        tokens = tokens.to(y.dtype)
        height = max(TILE_BYTES // (columns * y.dtype.itemsize) // ROWS_A_START, 1) * ROWS_A_START
        for first in range(0, rows, height):
            last = min(first + height, rows)
            y[:, first:last] = tokens @ self._unpacked(first, last, y.dtype).T
        return y

    def _unpacked(self, first: int, last: int, dtype: torch.dtype) -> Tensor:
        """Rows of the dense matrix in float32 or bfloat16; `first` is a multiple of ROWS_A_START."""
        if form() == "torch":
            return self._unpacked_by_torch(first, last, dtype)
        out = torch.empty(last - first, self.shape[1], dtype=dtype)
        self._run("unpack", first, last, out)
        return out

    def _unpacked_by_torch(self, first: int, last: int, dtype: torch.dtype) -> Tensor:
        columns, start = self.shape[1], int(self.starts[first // ROWS_A_START])
        bits = np.unpackbits(self.mask[first:last].numpy(), axis=1, count=columns, bitorder="little")
        mask = torch.from_numpy(bits).bool()
        values = self.values[start : start + int(mask.sum())]
        if self.scales is None:
            return torch.zeros(mask.shape, dtype=dtype).masked_scatter_(mask, values.to(dtype))
        weights = torch.zeros(mask.shape).masked_scatter_(mask, values.float())
        scales = self.scales[first:last].repeat_interleave(columns // self.scales.shape[1], dim=1)
        return (weights * scales).to(dtype)

    def _run(self, name: str, first: int, last: int, out: Tensor, tokens: Tensor | None = None) -> None:
        call(name, self._arguments(first, last), out, tokens)

    def _arguments(self, first: int, last: int) -> tuple[int, ...]:
        """What kernels.c is told of these rows; `first` is a multiple of ROWS_A_START."""
        rows_before = (first // ROWS_A_START) * self.starts.itemsize
        scales, groups = _scales(self.scales)
        return (
            *(TYPES[self.values.dtype], self.values.data_ptr(), self.values.numel()),
            *(self.mask.data_ptr() + first * self.mask.shape[1], self.starts.data_ptr() + rows_before),
            *(scales + 4 * first * groups if scales else 0, groups, last - first, self.shape[1]),
        )


def multiply_dense(matrix: Tensor, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """W x by the same sums in the same order from a dense matrix [rows, columns] of any of the types; for comparisons,
    and for a head. x is [..., columns]. UserError if there are no compiled kernels."""
    if form() == "torch":
        raise UserError("the dense kernel is a compiled one, and torch computes here")
    if matrix.dim() != 2 or matrix.dtype not in TYPES or (matrix.dtype == torch.int8) != (scales is not None):
        words = "it must be [rows, columns] of float32, bfloat16, float16, or of int8 with scales"
        raise UserError(f"the dense matrix is {_described(matrix)}; {words}")
    rows, columns = matrix.shape
    tokens = _tokens(x, columns, "matrix")
    address, groups = _scales(scales)
    matrix = matrix.contiguous()
    arguments = (TYPES[matrix.dtype], matrix.data_ptr(), matrix.numel(), 0, 0, address, groups, rows, columns)

    def by_kernel(part: Tensor) -> Tensor:
        y = _output(part, rows)
        call("multiply", arguments, y, part)
        return y

    return _as_given(_in_calls(tokens, by_kernel), x)


def _in_calls(tokens: Tensor, by_kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """y of any number of tokens, MOST_TOKENS at a time."""
    if len(tokens) <= MOST_TOKENS:
        return by_kernel(tokens)
    return torch.cat([by_kernel(part) for part in tokens.split(MOST_TOKENS)])


def _as_given(y: Tensor, x: Tensor) -> Tensor:
    """y [tokens, rows] in the type and the leading dimensions of x."""
    y = y if y.dtype == x.dtype else y.to(x.dtype)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[1])


def _output(tokens: Tensor, rows: int) -> Tensor:
    """For y [tokens, rows]: the tokens' type, float32 for float16, which is rounded once."""
    return torch.empty(len(tokens), rows, dtype=torch.bfloat16 if tokens.dtype == torch.bfloat16 else torch.float32)


def _scales(scales: Tensor | None) -> tuple[int, int]:
    """Their address, 0 for none, and how many a row has."""
    return (0, 1) if scales is None else (scales.data_ptr(), scales.shape[1])


def _tokens(x: Tensor, columns: int, name: str) -> Tensor:
    """x as [tokens, columns], contiguous; UserError if it does not fit."""
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16) or x.device.type != "cpu":
        words = "float32, bfloat16 or float16 on the CPU"
        raise UserError(f"{name} is multiplied with {x.dtype} on {x.device}; it can be with {words}")
    if x.dim() == 0 or x.shape[-1] != columns:
        raise UserError(f"{name} has {columns} columns and is multiplied with {list(x.shape)}")
    if x.requires_grad and torch.is_grad_enabled():
        raise UserError(f"{name} is packed and has no gradient: compute under torch.no_grad() or inference_mode()")
    return (x if x.dim() == 2 else x.reshape(-1, columns)).contiguous()


def _described(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {tensor.dtype}"


def _words(columns: int) -> int:
    return -(-columns // WORD)


def _rows_of_bits(bits: np.ndarray, rows: int, columns: int) -> Tensor:
    """The mask of a file, one run of bits with the first weight in the highest, as the kernels' rows."""
    if columns % 8 == 0:
        used = np.frombuffer(bits.tobytes().translate(REVERSED), np.uint8)
        return _padded(used.reshape(rows, columns // 8), columns)
    flat = np.unpackbits(bits, count=rows * columns).reshape(rows, columns)
    return _padded(np.packbits(flat, axis=1, bitorder="little"), columns)


def _padded(packed: np.ndarray, columns: int) -> Tensor:
    """Rows of bytes padded with 0 to whole words."""
    mask = torch.zeros(len(packed), _words(columns) * WORD // 8, dtype=torch.uint8)
    mask.numpy()[:, : packed.shape[1]] = packed
    return mask
