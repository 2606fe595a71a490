"""`python -m leap_repro.pipeline miniature`: train the released miniature models.

Plain next-token training on the `train` pages: AdamW, warm-up and cosine, one thread, one seed. A machine of the same
type gives the same bytes; another CPU may round differently.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from leap_repro.miniature.architectures import ARCHITECTURES
from leap_repro.miniature.text import pages
from leap_repro.miniature.tokenizer import TOKENIZER_PAGES, family_tokenizer, learn_vocabulary
from leap_repro.pipeline.provenance import provenance
from leap_repro.store.artifacts import writing
from leap_repro.store.atomic import share

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STEPS, BATCH, LENGTH = 5000, 16, 128
PEAK_LEARNING_RATE, FLOOR_SHARE, WARMUP = 4e-3, 0.02, 100


def token_stream(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    """All texts as one int64 stream: BOS (where the family has one), text, EOS."""
    ids: list[np.ndarray] = []
    for encoding in tokenizer(texts)["input_ids"]:
        ids.append(np.array([*encoding, tokenizer.eos_token_id], dtype=np.int64))
    return torch.from_numpy(np.concatenate(ids))


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to FLOOR_SHARE of the peak."""
    warm = min(1.0, (step + 1) / WARMUP)
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return PEAK_LEARNING_RATE * warm * (FLOOR_SHARE + (1 - FLOOR_SHARE) * cosine)


def train_model(name: str, texts: list[str], steps: int = STEPS) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Train the miniature `name` from its seed; returns it in bfloat16, with its tokenizer."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = ARCHITECTURES[name]()
    model = AutoModelForCausalLM.from_config(config)
    model.train()
    tokenizer = family_tokenizer(learn_vocabulary(texts[:TOKENIZER_PAGES]), bos=config.bos_token_id is not None)
    stream = token_stream(tokenizer, texts)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    bar = tqdm(range(steps), desc=name, mininterval=5.0)
    for step in bar:
        starts = torch.randint(len(stream) - LENGTH, (BATCH,), generator=generator)
        loss = train_step(model, optimizer, torch.stack([stream[s : s + LENGTH] for s in starts]), step, steps)
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    return model.eval().to(torch.bfloat16), tokenizer


def train_step(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, tokens_BT: Tensor, step: int, steps: int
) -> float:
    """One next-token step; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, steps)
    logits = model(tokens_BT, use_cache=False).logits[:, :-1]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens_BT[:, 1:].flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def main(arguments: argparse.Namespace) -> None:
    """Train one model and save it as a checkpoint folder."""
    model, tokenizer = train_model(arguments.name, pages("train"), arguments.steps)
    asked = {"name": arguments.name, "steps": arguments.steps}
    origin = provenance(("leap_repro.pipeline.stages.miniature",), asked, {})
    with writing(arguments.output, origin) as (payload, facts):
        model.save_pretrained(payload)
        tokenizer.save_pretrained(payload)
        for path in payload.iterdir():
            share(path)
        facts |= asked | {"parameters": model.num_parameters()}


def parser() -> argparse.ArgumentParser:
    """The recipe's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline miniature", description=__doc__)
    parser.add_argument("--name", required=True, choices=sorted(ARCHITECTURES))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output", required=True, type=Path)
    return parser
