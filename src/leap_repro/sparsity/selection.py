"""The k largest of billions of logits, exactly, without ever holding them: by counting the bits of float32.

A float's bits, with the sign turned, are an integer in the float's own order. Counts of its upper half, then of the
lower half among those that share the upper half of the k-th largest, are the k-th largest itself: a radix selection of
two digits of 2^16. Each pass reads one tensor after the other, CHUNK logits at a time; none is sorted or copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leap_repro.errors import UserError

CHUNK = 2**18
HALF = 16
DIGITS = 2**HALF
VALUE_BITS = 2**31 - 1
EXACT_IN_FLOAT32 = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Cut:
    """Where a selection ends: everything above `limit` is in, and of each tensor's logits that equal it the first
    `ties[name]`, counted row by row."""

    limit: float
    ties: dict[str, int]

    def mask(self, name: str, theta: Tensor) -> Tensor:
        """The bool mask of one of the tensors, of its shape."""
        flat = theta.flatten().float()
        keep = flat > self.limit
        if self.ties[name]:
            keep[torch.nonzero(flat == self.limit).flatten()[: self.ties[name]]] = True
        return keep.view(theta.shape)


def chunks(theta: Tensor) -> Iterator[Tensor]:
    """A tensor's logits row by row, CHUNK at a time, as flat float32."""
    for part in theta.flatten().split(CHUNK):
        yield part.float()


def require_logits(name: str, theta: Tensor) -> None:
    """UserError unless all are finite numbers that float32 holds exactly."""
    if theta.dtype not in EXACT_IN_FLOAT32:
        raise UserError(f"the logits of {name} are {theta.dtype}, not one of {', '.join(map(str, EXACT_IN_FLOAT32))}")
    if not all(bool(torch.isfinite(part).all()) for part in chunks(theta)):
        raise UserError(f"the logits of {name} are not finite")


def cut_at(logits: Mapping[str, Tensor], count: int) -> Cut:
    """The cut that leaves exactly the `count` largest of all tensors together; of equal logits the earlier tensor's,
    and within one the earlier position, is in."""
    if count == 0:
        return Cut(torch.inf, dict.fromkeys(logits, 0))
    upper, above = _digit(_counts(logits), count)
    lower, more = _digit(_counts(logits, upper), count - above)
    limit = _float_of((upper - DIGITS // 2) * DIGITS + lower)
    left, ties = count - above - more, {}
    for name, theta in logits.items():
        equal = sum(int((part == limit).count_nonzero()) for part in chunks(theta)) if left else 0
        ties[name] = min(left, equal)
        left -= ties[name]
    return Cut(limit, ties)


def _key(part: Tensor) -> Tensor:
    """int32 in the order of the floats: their own bits, but the value bits of what is below zero turned round. Both
    zeros have the same."""
    bits = (part + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & VALUE_BITS)


def _float_of(key: int) -> float:
    """The float with this key."""
    bits = torch.tensor(key if key >= 0 else key ^ VALUE_BITS, dtype=torch.int32)
    return float(bits.view(torch.float32))


def _counts(logits: Mapping[str, Tensor], upper: int | None = None) -> Tensor:
    """How many keys have each upper half, or each lower half among those whose upper half is `upper`; int64 [2^16]."""
    counts = torch.zeros(DIGITS, dtype=torch.int64)
    for theta in logits.values():
        for part in chunks(theta):
            key = _key(part)
            digit = (key >> HALF) + DIGITS // 2
            if upper is not None:
                digit = key[digit == upper] & (DIGITS - 1)
            counts += torch.bincount(digit, minlength=DIGITS)
    return counts


def _digit(counts: Tensor, count: int) -> tuple[int, int]:
    """The digit of the `count`-th largest, and how many have a larger one."""
    from_above = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_above, count))
    return DIGITS - 1 - place, int(from_above[place - 1]) if place else 0
