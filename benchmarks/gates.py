"""LEAP's gates at the shapes of a model's blocks: bytes a weight, share of the memory's bandwidth, and what a mask
training's step takes over a dense training's.

    python benchmarks/gates.py --write

On a GPU: blocks of Llama 3.1 8B, 8,192 tokens, the kernels and the plain way, in a few minutes. Without one: small
blocks and the plain way, which says how the script works and little else. Rows go to `benchmarks/gates.csv` and
.md. Weights and tokens are random, the vocabulary is small: only the blocks count.

A dense step is forward, backward and the same AdamW over the same matrices. Speeds of the gates are those of the least
bytes (`fused.least_bytes`), whatever a way moves. The plain way's bytes are counted operator by operator.
`TRITON_INTERPRET=1 python benchmarks/gates.py --way kernels` tries the kernels' path without a GPU, for its errors.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import count
from typing import Any

import torch
from learned_memory import most_resident, seconds_of
from measure import REPOSITORY, add_row, place
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig

from leap_repro.cli import report_errors
from leap_repro.errors import UserError
from leap_repro.models.load import DTYPES, best_device
from leap_repro.models.prunable import PrunableLinear, prunable_linears
from leap_repro.prune.job import Job
from leap_repro.prune.learned.adamw import AdamW
from leap_repro.prune.learned.fused import FusedLinear, bytes_moved, kernels_run, least_bytes
from leap_repro.prune.learned.gates import NOISES, BernoulliGate
from leap_repro.prune.learned.loss import next_token_loss
from leap_repro.prune.learned.masked import MaskedLinear, Step
from leap_repro.prune.learned.trainer import MaskTrainer
from leap_repro.prune.methods import leap

TABLE = REPOSITORY / "benchmarks/gates.csv"
EIGHT_B = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8}
SMALL = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 2}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
SHAPES = {"llama3.1-8b": EIGHT_B, "small": SMALL, "tiny": TINY}
WAYS = {"kernels": (FusedLinear, "counter"), "plain": (MaskedLinear, "generator")}
BFLOAT16_PEAKS = {"A100": 312e12, "H100": 989.4e12, "H200": 989.4e12, "B200": 2250e12}
"""Floating point operations per second by part of a device's name: NVIDIA's data sheets, dense, SXM modules."""
VOCABULARY, REPEATS, STEPS = 1024, 10, 3
FLUSH = 2**30
"""Bytes written before each measured call: no input lies in a cache, and the call is queued before they are through."""


class CountBytes(TorchDispatchMode):
    """Adds up the bytes of what every operator reads and writes; a view moves nothing."""

    moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.__name__:
            self.moved += sum(leaf.nbytes for leaf in tree_leaves((args, kwargs, found)) if isinstance(leaf, Tensor))
        return found


def random_blocks(shape: str, blocks: int, dtype: str) -> nn.Module:
    """A model of so many blocks with random weights, made in `dtype` at once."""
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], num_hidden_layers=blocks, vocab_size=VOCABULARY, use_cache=False)
    with best_device():
        return AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype]).eval().requires_grad_(False)


def trainer_of(model: nn.Module, way: str, tokens: Tensor, options: dict[str, Any]) -> MaskTrainer:
    """A training of LEAP on all tokens at once, its matrices run one way."""
    kind, source = WAYS[way]
    given = {"steps": 100, "batch_size": len(tokens), "micro_batch_size": len(tokens), "noise_source": source}
    trainer = leap.trainer(Job(model, leap.Options(**given | options), Fraction(1, 2), 0, tokens))
    trainer.layers = [kind(layer.linear, layer.gate, layer.index) for layer in trainer.layers]
    return trainer


def forward(layer: MaskedLinear, step: Step) -> Callable[[], Any]:
    """What makes W * M."""
    return lambda: layer._product(layer.mask(step, graph=False), step, measuring=True)


def backward(layer: MaskedLinear, step: Step) -> Callable[[], Any]:
    """What carries a new gradient at W * M to the logits; the gradient is made before, a mask that is needed is not."""
    weight = layer.linear.weight
    layer.gradient = torch.randn(weight.shape, device=weight.device)
    return lambda: layer._at_logits(layer.mask(step, graph=True), step, 1e-8, 1e-8)


def device_seconds(prepare: Callable[[], Callable[[], Any]]) -> float:
    """Median seconds of what `prepare` returns, on the device's clock, but for the first call, which compiles."""
    cuda, found = torch.cuda.is_available(), []
    flush = torch.empty(FLUSH, dtype=torch.uint8, device="cuda") if cuda else None
    for _ in range(REPEATS + 1):
        work = prepare()
        if cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            flush.zero_()
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            found.append(begin.elapsed_time(end) / 1e3)
        else:
            started = time.perf_counter()
            work()
            found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


def copy_speed() -> float:
    """Bytes per second, read and written, of a copy of 1 GiB (a GPU) or 64 MiB."""
    size = 2**30 if torch.cuda.is_available() else 2**26
    given = torch.zeros(size, dtype=torch.uint8, device=best_device())
    taken = torch.empty_like(given)
    return 2 * size / device_seconds(lambda: lambda: taken.copy_(given))


def bandwidth() -> float | None:
    """The memory's bytes per second by the device's own clock and bus, two transfers a cycle; None of a CPU."""
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties()
    return 2 * found.memory_clock_rate * 1e3 * found.memory_bus_width / 8


def counted_bytes(way: str, like: MaskedLinear, step: Step) -> tuple[float, float]:
    """Bytes a weight that a way moves forward and backward for a matrix: the kernels' by their arguments, those of the
    plain way's operators, be it within a cache, on one of 128 x 128 on the CPU."""
    weight, logits = like.linear.weight.dtype, like.gate.logits["logits"].dtype
    weights = like.linear.weight.numel()
    if way == "kernels":
        forth, back = (bytes_moved(weights, logits, weight, upstream) for upstream in (None, torch.float32))
        return forth / weights, back / weights
    module = nn.Linear(128, 128, bias=False).to(weight).requires_grad_(False)
    layer = MaskedLinear(PrunableLinear("", 0, module), BernoulliGate(torch.zeros(128, 128, dtype=logits)), 0)
    moved = []
    for work in (forward(layer, step), backward(layer, step)):
        with CountBytes() as counting:
            work()
        moved.append(counting.moved / module.weight.numel())
    return moved[0], moved[1]


def gate_columns(trainer: MaskTrainer, way: str) -> dict[str, Any]:
    """Bytes and speeds of the gates of the largest matrix."""
    layer = max(trainer.layers, key=lambda layer: layer.linear.weight.numel())
    weight, logits = layer.linear.weight, layer.gate.logits["logits"].dtype
    step = Step(0, 0, trainer.options.relaxation(0), noise=NOISES[trainer.options.noise_source])
    moved = counted_bytes(way, layer, step)
    peak, copied, columns = bandwidth(), copy_speed(), {}
    for name, work, bytes_, upstream in zip(
        ("forward", "backward"), (forward, backward), moved, (None, torch.float32), strict=True
    ):
        least = least_bytes(logits, weight.dtype, upstream)
        speed = least * weight.numel() / device_seconds(lambda work=work: work(layer, step))
        columns |= {
            f"{name}_bytes": round(bytes_, 3),
            f"{name}_least": least,
            f"{name}_gb_per_second": round(speed / 1e9, 1),
            f"{name}_of_bandwidth": round(speed / peak, 3) if peak else "-",
            f"{name}_of_copy": round(speed / copied, 3),
        }
    layer.gradient = layer.sum = layer.size = None
    return columns


def dense_step(model: nn.Module, tokens: Tensor, options: leap.Options) -> Callable[[], None]:
    """A step of training the prunable matrices themselves."""
    weights = [linear.module.weight.requires_grad_(True) for linear in prunable_linears(model)]
    optimizer = AdamW(weights, (options.beta1, options.beta2), options.weight_decay, DTYPES[options.state_dtype])
    numbers = count()

    def step() -> None:
        loss = next_token_loss(model(tokens, use_cache=False).logits, tokens)
        loss.backward()
        loss.item()
        optimizer.step(next(numbers), 1e-6)

    return step


def step_seconds(step: Callable[[], Any]) -> float:
    """Median of a few steps after a first."""
    return statistics.median([seconds_of(step) for _ in range(STEPS + 1)][1:])


def operations(model: nn.Module, length: int) -> float:
    """Of a step, for each token: 6 for every weight of the blocks, and of causal attention 6 T D a block."""
    config = model.config
    weights = sum(linear.weight.numel() for linear in prunable_linears(model))
    return 6 * weights + 6 * length * config.num_attention_heads * config.head_dim * config.num_hidden_layers


def fastest_of(machine: str) -> float | None:
    """The device's bfloat16 peak; None where we know none."""
    known = {name: peak for name, peak in BFLOAT16_PEAKS.items() if name in machine and "PCIe" not in machine}
    return next(iter(known.values()), None)


def mask_training(
    model: nn.Module, way: str, tokens: Tensor, given: dict[str, Any]
) -> tuple[float, int, dict[str, Any], leap.Options]:
    """Seconds of a step, the peak in bytes, the gates' columns, and all options."""
    trainer, numbers = trainer_of(model, way, tokens, given), count()
    seconds = step_seconds(lambda: trainer.step(next(numbers)))
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else most_resident()
    return seconds, peak, gate_columns(trainer, way), trainer.options


def measure(way: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    cuda = torch.cuda.is_available()
    model = random_blocks(asked.shape, asked.blocks, asked.dtype)
    tokens = torch.randint(0, VOCABULARY, (asked.tokens // asked.length, asked.length))
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds, peak, columns, options = mask_training(model, way, tokens, asked.options)
    dense = step_seconds(dense_step(model, tokens.to(best_device()), options))
    done = operations(model, asked.length) * tokens.numel() / seconds
    where = place("cuda" if cuda else "cpu")
    fastest = fastest_of(where["machine"]) if asked.dtype == "bfloat16" else None
    return {
        "shape": asked.shape,
        "blocks": asked.blocks,
        "way": way,
        "dtype": asked.dtype,
        "logits_dtype": options.logits_dtype,
        "tokens": tokens.numel(),
        "options": json.dumps(asked.options),
        **columns,
        "dense_seconds": round(dense, 4),
        "seconds": round(seconds, 4),
        "over_dense": round(seconds / dense, 3),
        "tokens_per_second": round(tokens.numel() / seconds, 1),
        "peak_mb": round(peak / 1e6),
        "tflops": round(done / 1e12, 3),
        "mfu": round(done / fastest, 3) if fastest else "-",
        **where,
    }


def parser(cuda: bool) -> argparse.ArgumentParser:
    """The benchmark's arguments; what is measured by default depends on there being a GPU."""
    parser = argparse.ArgumentParser(prog="python benchmarks/gates.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shape", choices=SHAPES, default="llama3.1-8b" if cuda else "small")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--way", choices=WAYS, nargs="+", default=["kernels", "plain"] if cuda else ["plain"])
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16" if cuda else "float32")
    parser.add_argument("--tokens", type=int, default=8192 if cuda else 512, help="of a step")
    parser.add_argument("--length", type=int, default=4096 if cuda else 128, help="tokens of a sequence")
    parser.add_argument("--options", type=json.loads, default={}, help="of the training")
    parser.add_argument("--write", action="store_true", help="add the rows to the table and the page")
    return parser


def main(asked: argparse.Namespace) -> None:
    """Measure each way and print its row; write the rows down if asked to."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if "kernels" in asked.way and not kernels_run(best_device()) and not interpreted:
        raise UserError("--way kernels needs a GPU and triton, or TRITON_INTERPRET=1, which tries the path only")
    if interpreted and asked.write:
        raise UserError("--write with TRITON_INTERPRET=1: an interpreter's times say nothing of a kernel")
    for way in asked.way:
        row = measure(way, asked)
        print(json.dumps(row), flush=True)
        if asked.write:
            add_row(TABLE, row, key=("shape", "blocks", "way", "dtype", "tokens", "options", "machine"))


if __name__ == "__main__":
    with report_errors():
        main(parser(torch.cuda.is_available()).parse_args())
