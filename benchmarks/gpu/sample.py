"""Text that the dense model writes itself: as much as there is time for, to be read once.

A sequence begins as a window of the training text does, and goes on by the model's own
probabilities, without a temperature and without a cut.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu.folder import Prepared
from gpu.rows import Row, Rows
from leap_repro.seeds import named_seed

START, LENGTH, TINY_LENGTH = 8, 512, 32
"""Tokens of the beginning, and of a whole sequence."""
SEQUENCES, TINY_SEQUENCES = 2048, 64
"""Written at a time."""
SECONDS = 75
"""After which no more are begun."""


def sample(rows: Rows, tiny: bool, prepared: Prepared) -> None:
    """Write the text beside what `prepare` wrote, unless it is there."""
    if not prepared.sampled.exists():
        rows.measure({"part": "sample"}, lambda: _sample_row(prepared, tiny), again=True)


def _sample_row(prepared: Prepared, tiny: bool) -> Row:
    length, count = (TINY_LENGTH, TINY_SEQUENCES) if tiny else (LENGTH, SEQUENCES)
    model, train = prepared.model(), prepared.tokens()["train"]
    generator = torch.Generator(model.device).manual_seed(named_seed("sampled text"))
    began, found = time.monotonic(), []
    while not found or time.monotonic() - began < (0 if tiny else SECONDS):
        starts = beginnings(train, count, len(found)).to(model.device)
        found.append(continued(model, starts, length, generator).cpu().numpy().astype(np.uint16))
    seconds = time.monotonic() - began
    text = np.concatenate(found).reshape(-1)
    np.save(prepared.sampled, text)
    return {"tokens": len(text), "length": length, "tokens_a_second": len(text) / seconds}


def beginnings(train: np.ndarray, count: int, batch: int) -> Tensor:
    """START tokens from places of the training text, others in each batch: int64 [count, START]."""
    generator = np.random.default_rng(named_seed("beginnings", batch))
    places = generator.integers(len(train) - START, size=count)
    return torch.from_numpy(train[places[:, None] + np.arange(START)].astype(np.int64))


@torch.inference_mode()
def continued(model: Any, starts: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """The beginnings [count, START] and what the model writes behind them, int64 [count, length]."""
    written, given, cache = [starts], starts, None
    for _ in range(length - starts.shape[1]):
        found = model(given, past_key_values=cache, use_cache=True, logits_to_keep=1)
        chances = found.logits[:, -1].float().softmax(dim=-1)
        given, cache = torch.multinomial(chances, 1, generator=generator), found.past_key_values
        written.append(given)
    return torch.cat(written, dim=1)
