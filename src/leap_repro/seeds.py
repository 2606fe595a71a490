"""Seeds by name: every random draw of a run has its own, derived from the cell's seed and what is drawn.

A plain sum or shift of numbers will not do: torch's CPU generator looks at the lower 32 bits of a seed only, so that
`seed << 32` is the same for every seed.
"""

from __future__ import annotations

import hashlib


def named_seed(name: str, *numbers: int) -> int:
    """A 32-bit seed for the draw `name` with `numbers` (seed, step, ...): the start of the sha256 of both."""
    text = "-".join([name, *(str(number) for number in numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
