"""Token ids from what the library is given: ids as they are, or texts, cut as the calibration stage cuts them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from leap_repro.calibration.packed import pack_sequences
from leap_repro.calibration.shards import random_windows
from leap_repro.errors import UserError
from leap_repro.prune.run import refuse_unknown_ids
from leap_repro.store.texts import TEXT_FILE, write_texts
from leap_repro.store.tokens import TokenRows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Cut = Callable[["PreTrainedTokenizerBase", Sequence[str]], Tensor]
"""How texts become ids [sequences, length]."""


def windows(sequences: int, length: int, seed: int) -> Cut:
    """The calibration sample: one random window of each document, in seeded order."""
    return lambda tokenizer, texts: random_windows(tokenizer, texts, sequences, length, seed).long()


def stream(sequences: int, length: int, seed: int, grouped: bool) -> Cut:
    """The training stream: documents in seeded order, each closed by EOS, packed; or `grouped`, as released."""

    def cut(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            write_texts(texts, Path(folder) / TEXT_FILE)
            files = [Path(folder) / TEXT_FILE]
            shards = pack_sequences(tokenizer, files, sequences, length, seed, Path(folder) / "ids", grouped)
            return TokenRows(shards)[:]

    return cut


def read_ids(
    name: str, given: Any, cut: Cut, tokenizer: Callable[[], PreTrainedTokenizerBase], model: PreTrainedModel
) -> Tensor:
    """int64 [sequences, length]; UserError, by the argument's `name`, unless `given` is texts or such ids of the
    model's vocabulary."""
    if isinstance(given, str):
        raise UserError(f"{name} is one text; it must be a list of texts, or token ids [sequences, length]")
    if isinstance(given, Sequence) and given and all(isinstance(text, str) for text in given):
        ids = cut(tokenizer(), given)
    else:
        ids = _as_ids(name, given)
    refuse_unknown_ids(int(ids.max()), model, name)
    return ids


def _as_ids(name: str, given: Any) -> Tensor:
    try:
        ids = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name} is {type(given).__name__}; it must be texts, or ids [sequences, length]") from error
    whole = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    if not whole or ids.dim() != 2 or ids.numel() == 0 or int(ids.min()) < 0:
        raise UserError(f"{name} is {ids.dtype} {list(ids.shape)}; it must be texts, or ids [sequences, length]")
    return ids.long().cpu()
