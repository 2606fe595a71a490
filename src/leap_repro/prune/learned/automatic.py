"""What `auto` stands for in a training's options: chosen by the memory formula for GPUs of a stated size.

A pure function of the model's sizes, the options, the number of processes and that size, never of the GPU that happens
to be there: the same configuration trains the same masks everywhere. No heavy imports: every dry run asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from leap_repro.models.sizes import Sizes
from leap_repro.prune.learned.declaration import LoopOptions, LoopOptionsT
from leap_repro.prune.learned.memory import training_bytes

FILLED = 0.9
"""The share of a GPU's memory that a choice may fill: peaks measured on a CPU are within a tenth of the formula."""


def chosen(
    options: LoopOptionsT,
    sizes: Sizes | None,
    dtype: str,
    length: int,
    processes: int,
    gpu_bytes: float,
) -> LoopOptionsT:
    """The options with values in place of `auto`: the first of `_candidates` that fit GPUs of `gpu_bytes`.

    Where none fits, or the model's `sizes` are not known, those that need the least memory. `dtype` is that of the
    weights, `length` the tokens of a sequence.
    """
    found = options
    for found in _candidates(options, processes):
        if sizes is None:
            continue
        parts = training_bytes(sizes, found, dtype, length, processes, "cuda")
        if sum(parts.values()) <= FILLED * gpu_bytes:
            break
    return found


def in_words(options: LoopOptions) -> str:
    """What was chosen, for people: `micro-batch 8, no recompute`."""
    recompute = "recompute" if options.gradient_checkpointing else "no recompute"
    words = f"micro-batch {options.micro_batch_size}, {recompute}"
    remade = getattr(options, "masked_weights", "kept") == "remade"
    return f"{words}, masked weights remade" if remade else words


def _candidates(options: LoopOptionsT, processes: int) -> Iterator[LoopOptionsT]:
    """From the fastest to the leanest: what is made again costs more time than small micro-batches do."""
    ways = {
        "masked_weights": ("kept", "remade"),
        "gradient_checkpointing": (False, True),
        "gathered": ("step", "pass") if processes > 1 else ("pass",),
        "micro_batch_size": _micro_batches(options.batch_size // processes),
    }
    names = options.automatic
    for values in product(*(ways[name] for name in names)):
        yield options.model_copy(update=dict(zip(names, values, strict=True)))


def _micro_batches(sequences: int) -> list[int]:
    """The powers of 2 that divide a process's share of a step, the largest first."""
    powers = [2**exponent for exponent in reversed(range(max(sequences, 1).bit_length()))]
    return [size for size in powers if sequences % size == 0]
