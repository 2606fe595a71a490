"""Models of the paper's sizes with random weights, and a training of LEAP on them, drawn on the device.

The values do not matter for times and memory; one CPU thread would draw them for minutes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import Any

import learned_memory
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from leap_repro.models.load import best_device, ready
from leap_repro.models.prunable import prunable_linears
from leap_repro.prune.job import Job
from leap_repro.prune.learned.gates import LOGIT_STD, BernoulliGate
from leap_repro.prune.learned.regularise import BudgetAndNorms
from leap_repro.prune.learned.trainer import MaskTrainer
from leap_repro.prune.methods import leap


@dataclass(frozen=True)
class Shape:
    """A model's sizes; `measured` of its `layers` are built where all would take too long."""

    hidden: int
    wide: int
    heads: int
    key_heads: int
    head: int
    vocabulary: int
    tied: bool
    layers: int
    measured: int


SHAPES = {
    "0.5B": Shape(896, 4864, 14, 2, 64, 151_936, True, 24, 24),
    "1B": Shape(2048, 8192, 32, 8, 64, 128_256, True, 16, 16),
    "8B": Shape(4096, 14_336, 32, 8, 128, 128_256, False, 32, 8),
    "tiny": Shape(64, 128, 4, 2, 16, 512, True, 2, 2),
}
"""Those of Qwen2.5-0.5B, Llama-3.2-1B and Llama-3.1-8B, and one for a rehearsal on a CPU."""


def random_model(name: str, layers: int | None = None) -> nn.Module:
    """A model of the shape in bfloat16, with so many layers or those that are measured."""
    shape = SHAPES[name]
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.wide,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        num_hidden_layers=layers or shape.measured,
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    with best_device():
        return ready(AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16))


def random_tokens(name: str, sequences: int, length: int) -> Tensor:
    """Token ids [sequences, length], the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, SHAPES[name].vocabulary, (sequences, length), generator=generator)


def trainer_of(model: nn.Module, tokens: Tensor, options: dict[str, Any]) -> MaskTrainer:
    """LEAP at 50 %, as `leap.trainer` makes it but for logits drawn on the device."""
    chosen = leap.Options(**{"steps": 100} | options)
    regulariser = BudgetAndNorms(0.5, chosen.density_weight, chosen.norm_weight)
    job = Job(model, chosen, Fraction(1, 2), 0, tokens)
    return MaskTrainer(job, _gates(model), regulariser)


def _gates(model: nn.Module) -> Iterator[BernoulliGate]:
    device = best_device()
    generator = torch.Generator(device).manual_seed(0)
    for linear in prunable_linears(model):
        draw = torch.randn(linear.weight.shape, device=device, generator=generator)
        yield BernoulliGate(draw * LOGIT_STD)


def seconds_of(work: Callable[[], Any], repeats: int = 2) -> float:
    """Median seconds of a call, when the device has finished it, after one call that compiles."""
    return median([learned_memory.seconds_of(work) for _ in range(repeats + 1)][1:])


def start_of_peak() -> None:
    """Forget the device's peak of memory so far, and what nothing uses."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> dict[str, float]:
    """The device's peak since then in GB, of tensors and of the allocator; nothing of a CPU."""
    if not torch.cuda.is_available():
        return {}
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"allocated_gb": allocated / 1e9, "reserved_gb": reserved / 1e9}
