"""Token perplexity by the pruning literature's protocol.

The documents are joined with blank lines, tokenised once (with what the tokenizer puts before a text, so a BOS stands
at the very beginning where the family uses one, and without what it puts behind one), cut into windows of `length`
tokens without overlap, the rest dropped; perplexity = exp(mean over windows of the mean next-token loss). A family that
needs a BOS in every window (Gemma) gets one: it is the window's first token, and length - 1 tokens of text are scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from leap_repro.errors import UserError
from leap_repro.models.checkpoint import position_limit
from leap_repro.models.head import Head
from leap_repro.models.load import NEEDS_BOS_IN_EVERY_WINDOW, vocabulary_size
from leap_repro.models.tokenizing import added_tokens, left_out, without_appended

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCORES = 2**27
"""The most scores (windows x length x vocabulary) at once: half a gigabyte in float32."""
CAUSAL_TOKENS, CLOSE = 32, 1e-2
SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Perplexity:
    """`value`, the standard error of it over windows (delta method), windows scored and `held` by the text, scored
    tokens, the BOS policy, and the tokens that the tokenizer would have put behind the text."""

    value: float
    stderr: float
    windows: int
    held: int
    tokens: int
    bos: str
    left_out: str = ""


def windows_of(ids: Sequence[int], length: int, bos: int | None) -> Tensor:
    """[windows, length] int64: consecutive cuts of `ids`, each led by `bos` if it is given (taking one place)."""
    body = length - (bos is not None)
    count = len(ids) // body
    cut = torch.tensor(ids[: count * body], dtype=torch.long).view(count, body)
    return cut if bos is None else torch.cat([torch.full((count, 1), bos), cut], dim=1)


@torch.no_grad()
def window_losses(model: PreTrainedModel, windows_NT: Tensor, batch_size: int) -> Tensor:
    """Mean next-token loss of each window, float64 [windows].

    At most SCORES scores are there at once, however long a window is, and their logarithms are taken a part at a time.
    """
    device = next(model.parameters()).device
    vocabulary = vocabulary_size(model)
    at_once = max(1, min(batch_size, SCORES // (windows_NT.shape[1] * vocabulary)))
    head = Head.of(model) if windows_NT.shape[1] * vocabulary > SCORES else None
    losses = []
    for batch in tqdm(windows_NT.split(at_once), desc=f"windows of {windows_NT.shape[1]} tokens", mininterval=2.0):
        batch = batch.to(device)
        if head:
            found = [_long_window_losses(head, batch, max(1, SCORES // vocabulary))]
        else:
            logits = model(batch, use_cache=False).logits
            found = [_losses(scores[:-1], window[1:]) for scores, window in zip(logits, batch, strict=True)]
        losses.append(torch.stack(found).double().mean(dim=1).cpu())
    return torch.cat(losses)


def _long_window_losses(head: Head, window_1T: Tensor, rows: int) -> Tensor:
    """The cross-entropy of each token of one window, float32 [T - 1], its scores made `rows` tokens at a time."""
    states_TD, targets_T = head.states(window_1T)[0, :-1], window_1T[0, 1:]
    parts = zip(states_TD.split(rows), targets_T.split(rows), strict=True)
    return torch.cat([_losses(head.scores(states), targets) for states, targets in parts])


def _losses(scores_TV: Tensor, targets_T: Tensor) -> Tensor:
    """The cross-entropy of each token of one window, float32 [T]."""
    rows = max(1, SCORES // 8 // scores_TV.shape[1])
    parts = [
        nn.functional.cross_entropy(scores.float(), targets, reduction="none")
        for scores, targets in zip(scores_TV.split(rows), targets_T.split(rows), strict=True)
    ]
    return torch.cat(parts)


@torch.no_grad()
def check_causal(model: PreTrainedModel, window_N: Tensor) -> None:
    """UserError if the scores before a token depend on it, as those of an encoder do that is no decoder: such a model
    sees the answer."""
    window = window_N[:CAUSAL_TOKENS].to(next(model.parameters()).device)
    other = window.clone()
    other[-1] = (other[-1] + 1) % vocabulary_size(model)
    first, second = (model(ids[None], use_cache=False).logits[0, :-1].float() for ids in (window, other))
    if bool((first - second).abs().max() > CLOSE * first.abs().max()):
        raise UserError(
            f"{type(model).__name__} is not a causal model with this config.json: its scores for a token depend on "
            "later tokens (is_decoder is false?)"
        )


def evaluate_perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[str],
    length: int,
    batch_size: int,
    at_most: int | None = None,
) -> Perplexity:
    """Perplexity of `model` on `documents` at windows of `length` tokens, of all or of the first `at_most`.

    Raises UserError if the text is shorter than two windows, `length` exceeds the model's positions, a token's scores
    depend on later tokens, or scores are not finite.
    """
    limit = position_limit(model.config.to_dict())
    if limit is not None and length > limit:
        raise UserError(f"perplexity length {length} exceeds the model's {limit} positions")
    tokenizer = without_appended(tokenizer)
    needs_bos = model.config.model_type.startswith(NEEDS_BOS_IN_EVERY_WINDOW)
    ids = tokenizer(SEPARATOR.join(documents), add_special_tokens=not needs_bos, verbose=False)["input_ids"]
    held_NT = windows_of(ids, length, cast("int | None", tokenizer.bos_token_id) if needs_bos else None)
    windows_NT = held_NT[:at_most]
    if len(windows_NT) < 2:
        raise UserError(f"the perplexity text has {len(ids)} tokens: fewer than two windows of {length}")
    check_causal(model, windows_NT[0])
    losses = window_losses(model, windows_NT, batch_size)
    if not bool(torch.isfinite(losses).all()):
        raise UserError(
            f"the model's scores are not finite in {model.dtype}: no result computed from them would be right"
        )
    value = math.exp(losses.mean())
    return Perplexity(
        value=value,
        stderr=value * float(losses.std() / len(losses) ** 0.5),
        windows=len(losses),
        held=len(held_NT),
        tokens=windows_NT.numel() - len(windows_NT),
        bos="every window" if needs_bos else _bos(tokenizer),
        left_out=left_out(tokenizer),
    )


def _bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """What stands before the whole text: "once" for the BOS, "none", or the names of other tokens."""
    before = list(added_tokens(tokenizer).before)
    if before in ([], [tokenizer.bos_token_id]):
        return "once" if before else "none"
    return " ".join(tokenizer.convert_ids_to_tokens(before))
