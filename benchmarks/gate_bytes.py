"""Bytes a weight that gates, sums and weights move in a step of mask training, counted for a GPU without one.

    python benchmarks/gate_bytes.py

One matrix, its weights in bfloat16 and its logits in float32, goes through the passes of a step on a device that is
only pretended, so that nothing is computed. Every operator counts what it reads and writes, a kernel what it is given.
A micro-batch is one token, so activations hardly count. `dense` is the same with the weights as they are, their
gradients summed in the same way. Rows go to `benchmarks/gate_bytes.csv`, which `docs/memory.md` shows.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any
from unittest.mock import patch

import torch
from gates import CountBytes
from learned_memory import Plain
from measure import REPOSITORY, show, write_rows
from torch import Tensor, nn

from leap_repro.models.prunable import PrunableLinear
from leap_repro.prune.learned import fused
from leap_repro.prune.learned.fused import FusedLinear
from leap_repro.prune.learned.gates import BernoulliGate, CounterNoise
from leap_repro.prune.learned.masked import MaskedLinear, Step
from leap_repro.prune.methods import leap

TABLE = REPOSITORY / "benchmarks/gate_bytes.csv"
SIZE = 256
"""Rows and columns of the matrix."""
WAYS = {"dense": Plain, "kernels": FusedLinear, "plain": MaskedLinear}
MICRO_BATCHES = (1, 32, 128)
"""Of a step: one; a paper's step of 256 sequences, eight or two at a time."""


class DrawnNoise(CounterNoise):
    """Numbers that are written once, by a generator or by a kernel that counts."""

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, device=self.device).uniform_()


class CountOnGpu(CountBytes):
    """Counts what writes into a given tensor without calling it: on a pretended device that fails."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if kwargs and "out" in kwargs:
            given = [each for each in (*args, kwargs["out"]) if isinstance(each, Tensor)]
            self.moved += sum(tensor.nbytes for tensor in given)
            return kwargs["out"]
        return super().__torch_dispatch__(func, types, args, kwargs)


def step_bytes(way: str, options: leap.Options, micro_batches: int) -> float:
    """Per weight, of one step."""
    with CountOnGpu() as counting:
        made = {"dtype": torch.bfloat16, "device": "meta"}
        module = nn.Linear(SIZE, SIZE, bias=False, **made).requires_grad_(False)
        gate = BernoulliGate(torch.zeros(SIZE, SIZE, device="meta"))
        layer: MaskedLinear = WAYS[way](PrunableLinear("", 0, module), gate, 0)
        x = torch.zeros(1, SIZE, **made)
        step = Step(
            0,
            0,
            options.relaxation(0),
            keeps_products=options.keeps_products,
            keeps_masks=options.keeps_masks,
            noise=DrawnNoise,
        )
        counting.moved = 0
        with patch.object(fused, "_launch", lambda name, tensors, *_: counted(counting, tensors)):
            for micro in range(micro_batches):
                now = step.of_pass(micro, micro == 0, micro + 1 == micro_batches)
                layer.forward(x, now)
                if options.gradient_checkpointing:
                    layer.forward(x, replace(now, measuring=False))
                layer.backward(x, x, now, needs_input=True)
    return counting.moved / SIZE**2


def counted(counting: CountBytes, tensors: tuple[Tensor, ...]) -> None:
    """Add a kernel's."""
    counting.moved += sum(tensor.nbytes for tensor in tensors)


def rows() -> list[dict[str, Any]]:
    """A row for each way, choice and number of micro-batches."""
    found = []
    for way, again, masked_weights in product(WAYS, (False, True), ("kept", "remade")):
        if way == "dense" and masked_weights == "remade":
            continue
        options = leap.Options(gradient_checkpointing=again, masked_weights=masked_weights)
        row = {"way": way, "gradient_checkpointing": again, "masked_weights": masked_weights if way != "dense" else "-"}
        moved = {f"of {count}": round(step_bytes(way, options, count)) for count in MICRO_BATCHES}
        found.append(row | moved)
    return found


if __name__ == "__main__":
    write_rows(TABLE, rows(), "Bytes a weight of a step of so many micro-batches.")
    show("docs/memory.md")
