"""The calibration sample of the layer-wise methods. It is a file, so every pruner of a model sees the same ids, and the
sha256 of the ids goes into every result row.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from leap_repro.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def random_windows(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], sequences: int, length: int, seed: int
) -> Tensor:
    """The reference recipe: documents in seeded order, one random window of each that is longer than `length` tokens.

    Returns int32 [sequences, length]. Raises UserError if fewer documents than `sequences` are long enough.
    """
    rng = random.Random(f"calibration-{seed}")
    order = rng.sample(range(len(texts)), len(texts))
    windows = []
    for index in order:
        ids = tokenizer(texts[index], verbose=False)["input_ids"]
        if len(ids) > length:
            windows.append(_window(ids, rng.randrange(len(ids) - length), length))
        if len(windows) == sequences:
            return torch.stack(windows)
    raise UserError(
        f"only {len(windows)} of {len(texts)} documents are longer than length={length} tokens, "
        f"but sequences={sequences} are needed: lower length or sequences, or give more text"
        f"{_of_txt(texts, sequences)}"
    )


def _of_txt(texts: Sequence[str], sequences: int) -> str:
    """What a text of one document a line, or all in one, has probably been taken for."""
    of_lines = "; in a .txt, blank lines separate documents, and line ends do not"
    return of_lines if len(texts) < sequences else ""


def released_windows(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], sequences: int, length: int, seed: int
) -> Tensor:
    """As the public codes draw (their get_loaders): Python's generator seeded with the number itself; for each sequence
    documents with replacement until one is long enough, and a window of it.

    Returns int32 [sequences, length]. Raises UserError if no document is long enough.
    """
    rng, short, windows = random.Random(seed), set(), []
    while len(windows) < sequences:
        index = rng.randint(0, len(texts) - 1)
        ids = tokenizer(texts[index], verbose=False)["input_ids"]
        if len(ids) > length:
            windows.append(_window(ids, rng.randint(0, len(ids) - length - 1), length))
        else:
            short.add(index)
        if len(short) == len(texts):
            which = f"none of {len(texts)} documents is longer than length={length} tokens"
            raise UserError(f"{which}: give longer text{_of_txt(texts, sequences)}")
    return torch.stack(windows)


def _window(ids: Sequence[int], start: int, length: int) -> Tensor:
    return torch.tensor(ids[start : start + length], dtype=torch.int32)


WINDOWS = {"windows": random_windows, "windows_as_released": released_windows}
"""The ways to draw a calibration sample, by the recipe's name."""


def ids_sha256(pieces: Iterable[Tensor | np.ndarray]) -> str:
    """The sha256 of the ids as little-endian int32, row after row: independent of the file format.

    `pieces` are ids [N, T], whole or cut anywhere between two rows.
    """
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(np.ascontiguousarray(piece, dtype="<i4").data)
    return digest.hexdigest()
