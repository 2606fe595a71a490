"""Seconds of a training step at the paper's sizes, by the way that W * M is made, beside a dense step;
and the peak of memory of a whole 8B model beside the formula.

A step of few micro-batches and one of more tell apart what each micro-batch costs and what a step
costs once. The paper's step has 1,048,576 tokens: its seconds are put together from the two.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any, NamedTuple

import torch
from learned_memory import plain_step
from torch import Tensor, nn

from gpu.rows import Row, Rows
from gpu.shapes import (
    SHAPES,
    peak,
    random_model,
    random_tokens,
    seconds_of,
    start_of_peak,
    trainer_of,
)
from leap_repro.models.load import best_device
from leap_repro.models.sizes import sizes_of
from leap_repro.prune.learned.memory import training_bytes
from leap_repro.prune.learned.trainer import MaskTrainer

PAPER_TOKENS, LENGTH, TINY_LENGTH = 2**20, 4096, 16
"""Tokens of the paper's step, and of a sequence."""
FEW, MORE = 1, 3
"""Micro-batches of the two steps that are timed."""
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"masked_weights": "remade", "noise_source": "generator"},
    "kernels": {"masked_weights": "remade", "noise_source": "counter"},
    "kept": {"masked_weights": "kept", "noise_source": "counter"},
}
"""How W * M is made, as options of the training: for each use by plain operators or by kernels, or
once a step by kernels."""
DENSE = "dense"
LOW_MEMORY = {
    "gradient_checkpointing": True,
    "micro_batch_size": 2,
    "logits_dtype": "bfloat16",
    "logits_rounding": "stochastic",
    "state_dtype": "int8",
    "gradients_dtype": "bfloat16",
}
"""The line `leap-low-memory` of the configuration, as it is chosen for 80 GB."""
OPTIMISERS = {
    "float32": {"logits_dtype": "float32", "state_dtype": "float32"},
    "low memory": {
        "logits_dtype": "bfloat16",
        "logits_rounding": "stochastic",
        "state_dtype": "int8",
    },
}


class Setting(NamedTuple):
    """Whether blocks run again in the backward pass, sequences of a micro-batch, compiled blocks."""

    recompute: bool
    micro: int
    compiled: bool = False

    @property
    def ways(self) -> tuple[str, ...]:
        """Compiling takes long, so that only the fastest way is compared."""
        return (DENSE, "kept") if self.compiled else (DENSE, *WAYS)


SETTINGS = {
    "8B": (Setting(True, 2), Setting(True, 8)),
    "1B": (Setting(True, 2), Setting(False, 4)),
    "0.5B": (Setting(True, 2), Setting(False, 8), Setting(False, 8, compiled=True)),
}
TINY_SETTINGS = {"tiny": (Setting(True, 2),)}


def steps(rows: Rows, tiny: bool) -> None:
    """A row for each shape, setting and way, and for each optimiser."""
    for name, settings in (TINY_SETTINGS if tiny else SETTINGS).items():
        model = random_model(name)
        length = TINY_LENGTH if tiny else LENGTH
        shape = {"shape": name, "layers": SHAPES[name].measured, "of_layers": SHAPES[name].layers}
        for optimiser, options in OPTIMISERS.items():
            key = {"part": "optimiser", **shape, "optimiser": optimiser}
            tokens = random_tokens(name, 1, length)
            rows.measure(key, partial(_optimiser_row, model, tokens, options))
        for setting in settings:
            tokens = random_tokens(name, MORE * setting.micro, length)
            for way in setting.ways:
                key = {"part": "step", **shape, **setting._asdict(), "length": length, "way": way}
                rows.measure(key, partial(_step_row, model, tokens, setting, way))
        del model
        start_of_peak()


def _step_row(model: nn.Module, tokens: Tensor, setting: Setting, way: str) -> Row:
    """Seconds of a micro-batch, once a step (with the optimiser), of the paper's step; the peak."""
    start_of_peak()
    options = {
        "gradient_checkpointing": setting.recompute,
        "micro_batch_size": setting.micro,
        "compiled_blocks": setting.compiled,
    }
    given = WAYS.get(way, {}) | options | {"batch_size": setting.micro}
    trainer = trainer_of(model, tokens, given)
    few = _seconds(trainer, tokens[: FEW * setting.micro], way == DENSE)
    more = _seconds(trainer, tokens[: MORE * setting.micro], way == DENSE)
    a_micro = (more - few) / (MORE - FEW)
    once = max(few - FEW * a_micro, 0.0)
    micros = PAPER_TOKENS / (setting.micro * tokens.shape[1])
    return {
        "micro_batch_seconds": a_micro,
        "once_seconds": once,
        "paper_step_seconds": once + micros * a_micro,
        **peak(),
    }


def _seconds(trainer: MaskTrainer, tokens: Tensor, dense: bool) -> float:
    """Of a step on these sequences: a training's own, or a dense one's passes."""
    trainer.tokens_NT = tokens
    trainer.options = trainer.options.model_copy(update={"batch_size": len(tokens)})
    if dense:
        return seconds_of(lambda: plain_step(trainer))
    numbers = count()
    return seconds_of(lambda: trainer.step(next(numbers)))


def _optimiser_row(model: nn.Module, tokens: Tensor, options: dict[str, Any]) -> Row:
    """Seconds of the optimiser's part of a step."""
    start_of_peak()
    trainer = trainer_of(model, tokens, {"batch_size": 1, "micro_batch_size": 1} | options)
    numbers = count()

    def update() -> None:
        for leaf in trainer.optimizer.parameters:
            leaf.grad = torch.full_like(leaf, 1e-4)
        trainer.optimizer.step(next(numbers), 1e-3)

    seconds = seconds_of(update)
    logits = sum(leaf.numel() for leaf in trainer.optimizer.parameters)
    return {"seconds": seconds, "logits": logits, **peak()}


def memory(rows: Rows, tiny: bool) -> None:
    """The low-memory line on a whole 8B model, two micro-batches and the optimiser, by way."""
    name = "tiny" if tiny else "8B"
    for way, options in WAYS.items():
        key = {"part": "memory", "shape": name, "layers": SHAPES[name].layers, "way": way}
        rows.measure(key, partial(_memory_row, name, TINY_LENGTH if tiny else LENGTH, options))


def _memory_row(name: str, length: int, way: dict[str, Any]) -> Row:
    """The formula's peak, the device's, and seconds of the step."""
    start_of_peak()
    model = random_model(name, SHAPES[name].layers)
    tokens = random_tokens(name, 4, length)
    trainer = trainer_of(model, tokens, LOW_MEMORY | way | {"batch_size": len(tokens)})
    numbers = count()
    seconds = seconds_of(lambda: trainer.step(next(numbers)), repeats=1)
    device = best_device().type
    sizes, options = sizes_of(model), trainer.options
    predicted = training_bytes(sizes, options, "bfloat16", length, device=device)
    return {"seconds": seconds, "predicted_gb": sum(predicted.values()) / 1e9, **peak()}
