"""Losses of one hardened cell, window by window, on every text of the rule: `score.smk` runs it.

Writes parquet, a row per window: text, window (its number in the text), article (the number of the
article in which it begins), loss (nats per token), and the cell that was scored.
"""

from __future__ import annotations

import argparse
import re
from bisect import bisect_right
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from leap_repro.evaluate.perplexity import SEPARATOR, window_losses, windows_of
from leap_repro.models.cell import apply_cell
from leap_repro.models.identity import require_made_from
from leap_repro.models.load import NEEDS_BOS_IN_EVERY_WINDOW, load_model, load_tokenizer
from leap_repro.pipeline.launch.memory import keep_freed_memory
from leap_repro.portable import CHOICES, PORTABLE
from leap_repro.portable.deterministic import deterministic
from leap_repro.portable.install import use_portable_kernels
from leap_repro.store.artifacts import Artifact
from leap_repro.store.atomic import replacing
from leap_repro.store.tokens import open_tokens

TITLE = re.compile(r"^ = [^=].* = \n?$")
"""The row of WikiText with which an article begins; sections have more equals signs."""
BATCH_TOKENS = 8192
"""Tokens per forward pass."""
ARTICLE_TOKENS = 1024
"""How much of an article of WikiText is scored, in windows shorter than that."""


def article_starts(rows: list[str], by_title: bool) -> list[int]:
    """Where each article begins in the joined text, in characters; every row is one, or those with a title are."""
    starts, position = [], 0
    for row in rows:
        if not by_title or TITLE.match(row):
            starts.append(position)
        position += len(row) + len(SEPARATOR)
    return starts


def spread(count: int, at_most: int) -> list[int]:
    """At most so many numbers below `count`, evenly spread from 0 on."""
    taken = min(count, at_most)
    return [number * count // taken for number in range(taken)]


def of_every_article(articles: list[int], each: int = 1) -> list[int]:
    """The first `each` windows that begin in each article, by the windows' articles."""
    return [number for number, article in enumerate(articles) if number < each or articles[number - each] != article]


def chosen_windows(
    tokenizer: Any, rows: list[str], by_title: bool, bos: int | None, length: int, at_most: int
) -> tuple[torch.Tensor, list[dict]]:
    """Windows [windows, length] spread over the text, and each one's number and article: of a text whose articles have
    titles, the first ARTICLE_TOKENS of each article, one window at least; else `at_most`, evenly spread."""
    coded = tokenizer(SEPARATOR.join(rows), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    windows_NT = windows_of(coded["input_ids"], length, bos)
    starts, body = article_starts(rows, by_title), length - (bos is not None)
    places = [coded["offset_mapping"][number * body][0] for number in range(len(windows_NT))]
    articles = [max(0, bisect_right(starts, place) - 1) for place in places]  # a blank row may come first
    each = max(1, ARTICLE_TOKENS // length)
    numbers = of_every_article(articles, each) if by_title else spread(len(windows_NT), at_most)
    facts = [{"window": number, "article": articles[number]} for number in numbers]
    return windows_NT[numbers], facts


def held_out_windows(folder: Path) -> tuple[torch.Tensor, list[dict]]:
    """The sequences on which settings are chosen; each is of a document of its own."""
    tokens_NT = open_tokens(Artifact.read(folder))[:]
    return tokens_NT, [{"window": number, "article": number} for number in range(len(tokens_NT))]


def texts_of(given: argparse.Namespace, tokenizer: Any, bos: int | None) -> dict[str, tuple]:
    """Windows and their facts by the text's name."""
    sizes = given.length, given.windows
    wikitext, c4 = (pq.read_table(path).column("text").to_pylist() for path in (given.wikitext, given.c4))
    return {
        "wikitext2": chosen_windows(tokenizer, [row or "" for row in wikitext], True, bos, *sizes),
        "c4": chosen_windows(tokenizer, c4, False, bos, *sizes),
        "held_out": held_out_windows(given.held_out),
    }


def main() -> None:
    """Score one cell on all texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "cell", "held-out"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="folder of the artifact")
    for name in ("wikitext", "c4", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="parquet file")
    parser.add_argument("--length", type=int, required=True, help="tokens per window")
    parser.add_argument("--windows", type=int, required=True, help="the most windows of C4")
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--bits", choices=CHOICES, required=True, help="portable: the caller has set LIBRARIES")
    given = parser.parse_args()
    if given.bits == PORTABLE:
        use_portable_kernels(given.dtype)
    keep_freed_memory()
    source, cell = (Artifact.read(folder, to_be_sure=True) for folder in (given.model, given.cell))
    require_made_from(cell, source)
    folder = source.verified_payload()
    model, tokenizer = load_model(folder, given.dtype), load_tokenizer(folder)
    kept = apply_cell(model, cell)
    needs_bos = model.config.model_type.startswith(NEEDS_BOS_IN_EVERY_WINDOW)
    texts = texts_of(given, tokenizer, tokenizer.bos_token_id if needs_bos else None)
    rows = []
    with deterministic(), torch.inference_mode():
        for text, (windows_NT, facts) in texts.items():
            batch = max(1, BATCH_TOKENS // windows_NT.shape[1])
            losses = window_losses(model, windows_NT, batch).tolist()
            rows += [{"text": text, **fact, "loss": loss} for fact, loss in zip(facts, losses, strict=True)]
    with replacing(given.output) as temporary:
        pq.write_table(
            pa.Table.from_pylist([row | {"cell": cell.facts["cell"], "kept": kept} for row in rows]), temporary
        )


if __name__ == "__main__":
    main()
