"""Random numbers by their place: Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
1, 2, 3" (SC 2011).

Ten rounds of multiplications scramble a counter under a key, so that the number at any position is made without those
before it: any device, and any part of a matrix, gives the same bits. In integers, exactly; held to Random123's vectors.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from leap_repro.seeds import named_seed

WORD = 0xFFFFFFFF
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
WORDS = 4
"""That one counter gives."""
UNIFORM_BITS = 22
"""Of a word that make a uniform number: the smallest, 2^-23, and the largest, 1 - 2^-23, are float32's, and so is their
distance from 1; all lie within `gates.EDGE`."""
AT_ONCE = {"cpu": 2**16, "cuda": 2**24}
"""Numbers made at a time: on a CPU so few that a core keeps them at hand, on a GPU so many that calls are few."""


def named_key(name: str, *numbers: int) -> int:
    """The 64-bit key of the draw `name` with `numbers` (seed, step, ...)."""
    return named_seed(name, *numbers) | named_seed(f"upper half of the {name}'s key", *numbers) << 32


def philox(counter: tuple[Tensor | int, ...], key: int) -> tuple[Tensor, ...]:
    """Four words of 32 bits in int64, elementwise for the four words of `counter`; `key` has 64 bits.

    Products of 64 bits are right but for their sign, which the mask after the shift takes away.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key & WORD, key >> 32
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = (second >> 32 & WORD) ^ c1 ^ k0, second & WORD
        c2, c3 = (first >> 32 & WORD) ^ c3 ^ k1, first & WORD
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    return cast("tuple[Tensor, ...]", (c0, c1, c2, c3))  # each has met a word that is a tensor


def uniforms(key: int, draw: int, first: int, count: int, device: torch.device) -> Tensor:
    """Uniform numbers in (0, 1) of one draw at the positions `first` to `first + count - 1`; float32 [count].

    Position p has word p mod 4 of the counter (p div 4 in 64 bits, draw, 0).
    """
    found = torch.empty(count, device=device)
    for part in found.split(AT_ONCE[device.type]):
        blocks = torch.arange(first // WORDS, -(-(first + len(part)) // WORDS), device=device)
        words = torch.stack(philox((blocks & WORD, blocks >> 32, draw, 0), key), dim=1).flatten()
        words = words[first % WORDS :][: len(part)] >> 32 - UNIFORM_BITS
        part.copy_(words).add_(0.5).mul_(2.0**-UNIFORM_BITS)
        first += len(part)
    return found
