"""A Llama of one million weights, trained on real text.

`python examples/bridge/train_model.py TRAINING HELD_OUT OUTPUT`. TRAINING and HELD_OUT are
files of `split_text.py`. The recipe is that of the miniature models: one seed, one thread, AdamW,
warm-up and cosine. The byte-level BPE is learned from TRAINING. Each half epoch the loss on HELD_OUT
is measured, and the weights with the lowest loss are written. The same versions give the same bytes
on every x86-64 processor with AVX2.
"""

from __future__ import annotations

from leap_repro.portable import pin

pin()

import argparse
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from leap_repro.evaluate.perplexity import window_losses, windows_of
from leap_repro.miniature.architectures import BOS, EOS, PAD, SPECIAL_TOKENS
from leap_repro.miniature.tokenizer import family_tokenizer, learn_vocabulary
from leap_repro.pipeline.stages.miniature import token_stream, train_step
from leap_repro.portable.install import use_portable_kernels

SEED = 0
LENGTH, BATCH = 128, 8
"""Tokens per sequence, and sequences per step."""
HELD_OUT_WINDOWS = 256


@dataclass(frozen=True)
class Recipe:
    """Sizes of the model and of its training; the defaults are the example's."""

    vocabulary: int = 2304
    hidden: int = 128
    intermediate: int = 256
    layers: int = 3
    epochs: float = 3.0

    def config(self) -> LlamaConfig:
        """Grouped queries, and an output matrix of its own."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2 * LENGTH,
            tie_word_embeddings=False,
            pad_token_id=SPECIAL_TOKENS.index(PAD),
            bos_token_id=SPECIAL_TOKENS.index(BOS),
            eos_token_id=SPECIAL_TOKENS.index(EOS),
        )


def batches(stream_N: Tensor, steps: int) -> Iterator[Tensor]:
    """`steps` batches [BATCH, LENGTH] at random places of the text."""
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(steps):
        starts = torch.randint(len(stream_N) - LENGTH, (BATCH,), generator=generator)
        yield torch.stack([stream_N[start : start + LENGTH] for start in starts])


def held_out_windows(stream_N: Tensor) -> Tensor:
    """At most HELD_OUT_WINDOWS windows [windows, LENGTH], evenly spread over the text."""
    windows_NT = windows_of(stream_N.tolist(), LENGTH, None)
    return windows_NT[:: -(-len(windows_NT) // HELD_OUT_WINDOWS)]


def train(model: LlamaForCausalLM, training_N: Tensor, held_out_N: Tensor, epochs: float) -> pd.DataFrame:
    """Train in place and leave the weights with the lowest held-out loss; a row per evaluation."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    windows_NT = held_out_windows(held_out_N)
    steps = round(epochs * len(training_N) / (BATCH * LENGTH))
    every = max(1, round(steps / epochs / 2))
    best: dict[str, Any] = {}
    losses, rows = [], []
    for step, tokens_BT in enumerate(tqdm(batches(training_N, steps), total=steps), start=1):
        losses.append(train_step(model, optimizer, tokens_BT, step - 1, steps))
        if step % every and step < steps:
            continue
        held_out = float(window_losses(model, windows_NT, BATCH).mean())
        if not rows or held_out < min(row["held_out_loss"] for row in rows):
            best = copy.deepcopy(model.state_dict())
        training = sum(losses) / len(losses)
        rows.append({"step": step, "training_loss": training, "held_out_loss": held_out})
        tqdm.write(str(rows[-1]))
        losses = []
    model.load_state_dict(best)
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Learn the vocabulary, train, write the folder and its log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("training", type=Path, help="parquet file with a column `text`")
    parser.add_argument("held_out", type=Path, help="parquet file with a column `text`")
    parser.add_argument("output", type=Path, help="folder of the model")
    for name, default in vars(Recipe()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    given = parser.parse_args(arguments)
    recipe = Recipe(**{name: getattr(given, name) for name in vars(Recipe())})
    use_portable_kernels("float32")
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    texts = [pq.read_table(path).column("text").to_pylist() for path in (given.training, given.held_out)]
    tokenizer = family_tokenizer(learn_vocabulary(texts[0], recipe.vocabulary), bos=True)
    model = LlamaForCausalLM(recipe.config()).train()
    training_N, held_out_N = (token_stream(tokenizer, text) for text in texts)
    log = train(model, training_N, held_out_N, recipe.epochs)
    model.eval().save_pretrained(given.output)
    tokenizer.save_pretrained(given.output)
    log.to_csv(given.output / "training.csv", index=False, float_format="%.6g")
    print(f"{given.output}: {model.num_parameters():,} weights, {len(training_N):,} tokens an epoch")


if __name__ == "__main__":
    main()
