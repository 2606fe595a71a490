"""`leap-repro generate`: generate text from an export after a prompt, and print the speed.

A packed export runs packed: its matrices stay packed in memory (docs/serving.md).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap_repro.cli import run_stage
from leap_repro.errors import UserError, shown
from leap_repro.export.forms import Packed
from leap_repro.export.index import INDEX_FILE, read_index
from leap_repro.export.load import RUNS, Run, load_pruned
from leap_repro.models.checkpoint import position_limit
from leap_repro.models.examine import check_tokenizer
from leap_repro.models.load import load_tokenizer
from leap_repro.models.tokenizing import check_file
from leap_repro.places import expanded
from leap_repro.seeds import named_seed

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def main(arguments: argparse.Namespace) -> None:
    """Check, load, write."""
    import torch

    check(arguments)
    folder = expanded(arguments.folder, "FOLDER")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    run: Run = arguments.run or fitting(folder)
    model = load_pruned(folder, run=run)
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, model)
    check_file(tokenizer, folder)
    ids = prompt_ids(tokenizer, arguments.prompt, arguments.max_new_tokens, model)
    torch.manual_seed(named_seed("generate", arguments.seed))
    times = write(model, tokenizer, ids, choice(arguments.temperature), arguments.max_new_tokens)
    print(f"{times}; {how(run)}, {torch.get_num_threads()} threads", file=sys.stderr)


def fitting(folder: Path) -> Run:
    """ "packed" for an export of that format, else "dense"."""
    is_compressed = (folder / INDEX_FILE).is_file()
    return "packed" if is_compressed and read_index(folder).format == Packed.name else "dense"


def check(arguments: argparse.Namespace) -> None:
    """UserError for a number that cannot be right."""
    if arguments.max_new_tokens < 1:
        raise UserError(f"--max-new-tokens is {arguments.max_new_tokens}; it must be an integer of at least 1")
    if not 0 <= arguments.temperature < math.inf:
        raise UserError(
            f"--temperature is {arguments.temperature}; it must be 0, which is greedy, or a positive number"
        )
    if arguments.threads is not None and arguments.threads < 1:
        raise UserError(f"--threads is {arguments.threads}; it must be an integer of at least 1")


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, new_tokens: int, model: PreTrainedModel) -> Tensor:
    """The prompt's tokens [1, T]; UserError if it has none, or if the model has too few positions for what is asked."""
    import torch

    ids = tokenizer(prompt)["input_ids"]
    if not ids:
        raise UserError(f"--prompt is {shown(prompt)}, which has no token; the model needs at least one")
    limit = position_limit(model.config.to_dict())
    if limit is not None and len(ids) + new_tokens > limit:
        asked = f"--prompt has {len(ids)} tokens and --max-new-tokens is {new_tokens}"
        raise UserError(f"{asked}; together they may be {limit}, the model's positions")
    return torch.tensor([ids])


def choice(temperature: float) -> dict[str, Any]:
    """How the next token is chosen, in the words of `generate`: the likeliest, or drawn from all."""
    if temperature == 0:
        return {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids_1T: Tensor,
    chosen: dict[str, Any],
    new_tokens: int,
) -> str:
    """Print prompt and continuation while they are made; returns the speed of both steps, in words."""
    import torch
    from transformers import TextStreamer

    class Timed(TextStreamer):
        """Prints words, and sums the seconds between one token's coming and the next."""

        def __init__(self) -> None:
            super().__init__(tokenizer, skip_special_tokens=True)
            self.seconds: list[float] = []
            self.since = 0.0

        def put(self, value: Any) -> None:
            self.seconds.append(time.perf_counter() - self.since)
            super().put(value)
            self.since = time.perf_counter()

    timed = Timed()
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    generate: Any = model.generate  # declared as a part of any module, which may be a tensor
    with torch.inference_mode():
        generate(
            ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            max_new_tokens=new_tokens,
            pad_token_id=padding,
            streamer=timed,
            **chosen,
        )
    _, prefill, *steps = timed.seconds  # the first is the prompt's own coming
    words = [f"prefill {ids_1T.shape[1]} tokens, {ids_1T.shape[1] / prefill:.1f} tokens/s"]
    if steps:
        words.append(f"decode {len(steps)} tokens, {len(steps) / sum(steps):.1f} tokens/s")
    return "; ".join(words)


def how(run: str) -> str:
    """What computes, in words."""
    from leap_repro.runtime.forms import form

    return f"run packed, kernels {form()}" if run == "packed" else "run dense, by torch"


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="leap-repro generate", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="an export, or another checkpoint")
    parser.add_argument("--prompt", required=True, help="the text to continue")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="most tokens to write (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default: always the most likely token")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of sampling with a temperature (default: %(default)s)"
    )
    parser.add_argument("--run", choices=RUNS, help="default: packed for a packed export, else dense")
    parser.add_argument("--threads", type=int, help="default: one per core")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
