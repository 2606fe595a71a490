"""Settings under which a training fits into a GPU, by asking the memory formula; and what the authors' own took."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from leap_repro.costs.resources import need
from leap_repro.models.sizes import Sizes
from leap_repro.pipeline.grid import Method, Study

SAVINGS: tuple[dict[str, Any], ...] = (
    {"gradient_checkpointing": True},
    {"masked_weights": "remade"},
    {"micro_batch_size": 1},
    {"state_dtype": "int8"},
    {"gradients_dtype": "bfloat16"},
    {"logits_dtype": "bfloat16", "logits_rounding": "stochastic"},
)
"""What saves memory, in the order in which it is tried, each on top of those before: first what costs time only."""
AUTHORS = (
    "the authors' trainings of LEAP took 22 to 276 H100-hours a cell (0.5B to 8B, on 4 GPUs, 2,097 million tokens)"
)


def suggestion(study: Study, method: Method, sizes: Sizes, gpu_bytes: float) -> str:
    """With which options a training of a model of these sizes fits into `gpu_bytes`, if with any of SAVINGS: the end of
    a sentence. The method has no option that is `auto`."""
    chosen: dict[str, Any] = {}
    needed = _needed(study, method, chosen, sizes)
    for saving in SAVINGS:
        further = {key: value for key, value in saving.items() if getattr(method.options, key, value) != value}
        if not _allowed(method, chosen | further):
            continue
        chosen |= further
        needed = _needed(study, method, chosen, sizes)
        if needed <= gpu_bytes:
            return f"with {_words(chosen)} it needs about {gigabytes(needed)}"
    least = (
        f"even with {_words(chosen)} it needs about {gigabytes(needed)}"
        if chosen
        else "all options that save memory are set"
    )
    return f"{least}: a larger GPU is needed"


def gigabytes(size: float) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.1f} GB"


def _allowed(method: Method, chosen: dict[str, Any]) -> bool:
    """Whether the method takes these options beside its own."""
    try:
        type(method.options).model_validate(method.options.model_dump() | chosen)
    except ValidationError:
        return False
    return True


def _needed(study: Study, method: Method, chosen: dict[str, Any], sizes: Sizes) -> float:
    changed = replace(method, options=method.options.model_copy(update=chosen))
    other = replace(study, methods=study.methods | {method.name: changed})
    return need("prune", other, sizes, method.name).gpu_bytes


def _words(chosen: dict[str, Any]) -> str:
    return f"`{', '.join(f'{key}: {str(value).lower()}' for key, value in chosen.items())}`"
