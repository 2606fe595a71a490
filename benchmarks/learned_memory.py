"""A mask training at any model shape: its peak memory against the formula of `leap_repro.prune.learned.memory`, its
speed, and the share of the time that the gates cost.

    python benchmarks/learned_memory.py --shape llama3.2-1b --write

prints the parts of the formula and one row, and adds it to `benchmarks/learned_memory.csv` and its table. The
model is randomly initialised, the text is random: only sizes matter. Without a GPU the peak is the
process's resident set above its peak after a tiny training; with one it is the device's. The gates' share is what a
step takes beyond the same passes over the same micro-batches with the weights as they are: forward, backward, and the
gradient at every prunable weight.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from measure import add_row, place
from transformers import AutoModelForCausalLM, LlamaConfig

from leap_repro.models.load import DTYPES, best_device
from leap_repro.models.sizes import sizes_of
from leap_repro.prune.job import Job
from leap_repro.prune.learned.masked import MaskedLinear, Step, masked, matrix_product, running_blocks
from leap_repro.prune.learned.memory import training_bytes
from leap_repro.prune.learned.trainer import MaskTrainer
from leap_repro.prune.methods import leap, maskllm

SHAPES = {
    "llama3.2-1b": LlamaConfig(
        hidden_size=2048,
        num_hidden_layers=16,
        intermediate_size=8192,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        vocab_size=128256,
        tie_word_embeddings=True,
    ),
    "tiny": LlamaConfig(
        hidden_size=64,
        num_hidden_layers=1,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=500,
        tie_word_embeddings=True,
    ),
    "small": LlamaConfig(
        hidden_size=256,
        num_hidden_layers=6,
        intermediate_size=1024,
        num_attention_heads=8,
        num_key_value_heads=2,
        vocab_size=1000,
        tie_word_embeddings=True,
    ),
}
TABLE = Path(__file__).with_suffix(".csv")
M_MMAP_THRESHOLD = -3
GATES = {"leap": leap, "maskllm": maskllm}


def most_resident() -> int:
    """The process's largest resident set so far, in bytes. (getrusage's also counts the parent's before the exec.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def random_model(shape: str, dtype: str) -> torch.nn.Module:
    """A model of the shape with random weights, made in `dtype` at once, so that no float32 copy counts."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=DTYPES[dtype])
    model.config.use_cache = False
    return model.eval().requires_grad_(False).to(best_device())


class Plain(MaskedLinear):
    """A prunable matrix without a mask, which leaves the gradient at its weight as `MaskedLinear` does."""

    @torch.no_grad()
    def forward(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.linear.weight, self.linear.module.bias)

    def backward(self, x: torch.Tensor, gradient: torch.Tensor, step: Step, needs_input: bool) -> torch.Tensor | None:
        gradient_TO = gradient.reshape(-1, gradient.shape[-1])
        self._accumulate(gradient_TO.T, x.reshape(-1, x.shape[-1]), step)
        return matrix_product(gradient_TO, self.linear.weight).to(gradient.dtype).view(x.shape) if needs_input else None


def seconds_of(function: Callable[[], Any]) -> float:
    """Of one call, on the clock, when the device has finished it."""
    started = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def plain_step(trainer: MaskTrainer) -> None:
    """A step's passes over its micro-batches without gates and without an optimiser."""
    layers = [Plain(layer.linear, layer.gate, layer.index) for layer in trainer.layers]
    step = Step(0, 0, trainer.options.relaxation(0))
    with masked(layers, step), running_blocks(trainer.model, trainer.options):
        for micro in trainer.tokens_NT.split(trainer.options.micro_batch_size):
            trainer.language_loss(micro.to(trainer.device)).backward()


def measure(shape: str, gate: str, dtype: str, length: int, options: dict[str, Any]) -> dict[str, Any]:
    """One row: predicted and measured peak in MB, their ratio, seconds of the last step, its tokens per second, and
    the gates' share of it."""
    module = GATES[gate]
    chosen = module.Options(**options)
    cuda = torch.cuda.is_available()
    before = most_resident()
    model = random_model(shape, dtype)
    parts = training_bytes(sizes_of(model), chosen, dtype, length)
    print("parts, MB:", {name: round(size / 1e6) for name, size in parts.items()}, flush=True)
    tokens = torch.randint(0, model.config.vocab_size, (chosen.batch_size, length))
    trainer = module.trainer(Job(model, chosen, Fraction(1, 2), 0, tokens))
    *_, seconds = [seconds_of(lambda number=number: trainer.step(number)) for number in range(chosen.steps)]
    peak = torch.cuda.max_memory_allocated() if cuda else most_resident() - before
    *_, plain = [seconds_of(lambda: plain_step(trainer)) for _ in range(chosen.steps)]
    return {
        "shape": shape,
        "gate": gate,
        "dtype": dtype,
        "tokens": chosen.micro_batch_size * length,
        "predicted_mb": round(sum(parts.values()) / 1e6),
        "measured_mb": round(peak / 1e6),
        "measured_over_predicted": round(peak / sum(parts.values()), 3),
        "seconds_per_step": round(seconds, 2),
        "tokens_per_second": round(tokens.numel() / seconds, 1),
        "gates_share": round(1 - plain / seconds, 2),
        "options": json.dumps(options),
        **place("cuda" if cuda else "cpu"),
    }


def give_back_at_once() -> None:
    """Let glibc return every freed matrix to the system at once, so that the peak is what is in use."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)


def main() -> None:
    """Measure once, print the row, and write it down if asked to."""
    give_back_at_once()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--gate", choices=GATES, default="leap")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--length", type=int, default=64, help="tokens of a sequence")
    parser.add_argument("--options", type=json.loads, default={}, help="of the training, over short ones")
    parser.add_argument("--write", action="store_true", help="add the row to the table")
    arguments = parser.parse_args()
    options = {"steps": 2, "batch_size": 2, "micro_batch_size": 1, "gradient_checkpointing": True} | arguments.options
    measure("tiny", arguments.gate, arguments.dtype, arguments.length, options)  # loads code, so that it is not counted
    row = measure(arguments.shape, arguments.gate, arguments.dtype, arguments.length, options)
    print(json.dumps(row))
    if arguments.write:
        add_row(TABLE, row, key=("shape", "gate", "dtype", "tokens", "options", "device"))


if __name__ == "__main__":
    main()
