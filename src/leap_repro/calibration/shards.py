"""Token shards: the calibration sample of the layer-wise methods and the packed stream of the learned ones.

Both are files, so every pruner of a model sees the same ids; the sha256 of the ids goes into every result row.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

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
            start = rng.randrange(len(ids) - length)
            windows.append(torch.tensor(ids[start : start + length], dtype=torch.int32))
        if len(windows) == sequences:
            return torch.stack(windows)
    raise UserError(
        f"only {len(windows)} of {len(texts)} documents are longer than length={length} tokens, "
        f"sequences={sequences} are asked for: lower one of them or give more text"
    )


def packed(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], sequences: int, length: int, seed: int) -> Tensor:
    """Documents in seeded order, each closed by EOS, as one stream cut into `sequences` x `length` ids, int32.

    Raises UserError if the text is too short.
    """
    order = random.Random(f"packed-{seed}").sample(range(len(texts)), len(texts))
    stream: list[int] = []
    for index in order:
        stream.extend(tokenizer(texts[index], verbose=False)["input_ids"])
        if tokenizer.eos_token_id is not None:
            stream.append(tokenizer.eos_token_id)
        if len(stream) >= sequences * length:
            return torch.tensor(stream[: sequences * length], dtype=torch.int32).view(sequences, length)
    raise UserError(
        f"the text has {len(stream)} tokens, sequences={sequences} x length={length} need {sequences * length}"
    )


RECIPES = {"windows": random_windows, "packed": packed}


def ids_sha256(tokens: Tensor) -> str:
    """The sha256 of the ids as little-endian int32, row after row: independent of the file format."""
    return hashlib.sha256(tokens.to(torch.int32).contiguous().numpy().astype("<i4").tobytes()).hexdigest()
