"""What a mask training of each of the paper's models needs of every GPU, and how long it takes, by the plan's formulas.

    python benchmarks/scaling.py

writes `benchmarks/scaling.md`: GB and hours by the number of GPUs, which `docs/scaling.md` shows;
`benchmarks/roofline.md`: a step of LEAP as it was and as it is; and `benchmarks/choices.md`: what is chosen on GPUs of
several sizes. Nothing is measured: a test holds the files to the plan.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from measure import show

from leap_repro.costs.resources import need
from leap_repro.costs.roofline import GPU, H100, H200, Way, parts, step_seconds, way_of
from leap_repro.models.sizes import sizes_as_declared
from leap_repro.pipeline.grid import Study, read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.prune.learned.automatic import in_words
from leap_repro.store.atomic import write_text

TOP = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".md")
STEPS = TABLE.with_stem("roofline")
CHOICES = TABLE.with_stem("choices")
COUNTS = (1, 2, 4, 8)
MEMORY = (24, 48, 80, 141)
"""GB of a GPU."""
LEAN = "leap-low-memory"
ROWS = (
    (1, "leap", "qwen2.5-0.5b"),
    (1, "leap", "llama3.2-1b"),
    (1, "leap", "llama3.1-8b"),
    (4, "leap", "llama3.1-8b"),
    (1, LEAN, "llama3.1-8b"),
)
"""GPUs, line and model of the table of steps."""
PLAIN = Way(gate=64, slope=0, sums=20, optimiser=28, launches=371, remade=True, again=1, scores=2**26)
"""A step as of 7e656ec: gates operator by operator, their noise by torch's generator, made for each use; gradients
added up in float32 after each product; the whole block made again. Bytes and kernels as counted there."""
LEAN_PLAIN = replace(PLAIN, gate=68, sums=74, optimiser=8, launches=462)
"""The same in few bits."""
BEFORE = {"gradient_checkpointing": True, "masked_weights": "remade"}


def table() -> str:
    """GB of each GPU, and hours of a cell, by the number of GPUs."""
    config = read_config(project=TOP) | {"scale": "paper"}
    head = [f"{count} GPU{'s' * (count > 1)}" for count in COUNTS]
    lines = [
        "Computed, not measured: GB of each H100 and hours of a cell, with the settings of `scale: paper`, whose "
        f"options are chosen for GPUs of 80 GB; in brackets the GB with those of `{LEAN}`. What needs more than 80 "
        "does not fit.",
        "",
        f"| | {' | '.join(head)} |",
        f"|---|{'---:|' * len(COUNTS)}",
    ]
    studies = [_study(config, count) for count in COUNTS]
    for method in ("leap", "maskllm"):
        for model in studies[0].models:
            cells = [_cell(study, method, model) for study in studies]
            lines.append(f"| {method}, {model} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _study(config: dict[str, Any], count: int) -> Study:
    """The paper's, its trainings on so many GPUs; `lean-…` are they with the options of few bits."""
    few = config["methods"][LEAN]["options"]
    lines = {f"lean-{name}": {"extends": name, "options": few} for name in ("leap", "maskllm")}
    paper = config["scales"]["paper"] | {"gpus": {"leap": count, "maskllm": count}, "extended": []}
    return read_study(config | {"methods": config["methods"] | lines, "scales": config["scales"] | {"paper": paper}})


def _cell(study: Study, method: str, model: str) -> str:
    """`143 (67) GB, 208.1 h`"""
    sizes = sizes_as_declared(study.models[model])
    own, lean = (need("prune", study, sizes, name, model) for name in (method, f"lean-{method}"))
    hours = own.seconds(study, True, study.methods[method].gpus) / 3600
    return f"{own.gpu_bytes / 1e9:.0f} ({lean.gpu_bytes / 1e9:.0f}) GB, {hours:.1f} h"


def steps() -> str:
    """Seconds of a step of LEAP, and over the same step with dense weights, before and after."""
    config = read_config(project=TOP) | {"scale": "paper"}
    lines = [
        "Computed, not measured: seconds of a step of 256 x 4,096 tokens, and in brackets over the same step that "
        "trains the weights themselves, its gradients added up in float32.",
        "",
        "| | before: H100 | H200 | after: H100 | H200 | chosen for GPUs of 80 GB | needs |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for count, name, model in ROWS:
        study = _study(config, count)
        cells = [*_before(study, name, model), *_after(study, name, model)]
        several = f", {count} GPUs" if count > 1 else ""
        lines.append(f"| {name}, {model}{several} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _before(study: Study, name: str, model: str) -> list[str]:
    micro = 1 if name == LEAN else 2
    options = study.methods[name].options.model_copy(update=BEFORE | {"micro_batch_size": micro})
    way = LEAN_PLAIN if name == LEAN else PLAIN
    return [_step(study, name, model, options, (way, PLAIN.dense), gpu) for gpu in (H100, H200)]


def _after(study: Study, name: str, model: str) -> list[str]:
    options, sizes = study.line(name, model).options, sizes_as_declared(study.models[model])
    way = way_of(sizes, options, study.settings.dtype)
    ways = (way, replace(way.dense, sums=8))
    cells = [_step(study, name, model, options, ways, gpu) for gpu in (H100, H200)]
    needed = need("prune", study, sizes, name, model).gpu_bytes
    return [*cells, in_words(options), f"{needed / 1e9:.0f} GB"]


def _step(study: Study, name: str, model: str, options: Any, ways: tuple[Way, Way], gpu: GPU) -> str:
    """`186.9 s (1.34)`: with gates, and over one without."""
    sizes, shard, count = sizes_as_declared(study.models[model]), study.settings.mask_training, study.methods[name].gpus
    assert shard is not None
    masked, dense = (step_seconds(parts(sizes, options, way, shard.length, count, gpu)) for way in ways)
    return f"{masked:.1f} s ({masked / dense:.2f})"


def choices() -> str:
    """What is chosen for a training on one GPU by its memory, what it needs then, and hours."""
    study = read_study(read_config(project=TOP) | {"scale": "paper"})
    lines = [
        "Computed, not measured: hours of a cell on one H100, were it of this memory; a line in brackets does not fit.",
        "",
        f"| | {' | '.join(f'{size} GB' for size in MEMORY)} |",
        f"|---|{'---|' * len(MEMORY)}",
    ]
    for name, model in product(("leap", LEAN, "maskllm"), study.models):
        sized = [replace(study, settings=study.settings.model_copy(update={"gpu_memory": size})) for size in MEMORY]
        lines.append(f"| {name}, {model} | {' | '.join(_choice(each, name, model) for each in sized)} |")
    return "\n".join(lines) + "\n"


def _choice(study: Study, name: str, model: str) -> str:
    """`micro-batch 8, no recompute: 63 GB, 9.0 h`"""
    estimate = need("prune", study, sizes_as_declared(study.models[model]), name, model)
    hours = estimate.seconds(study, True, study.methods[name].gpus) / 3600
    words = in_words(study.line(name, model).options)
    words = f"{words}: {estimate.gpu_bytes / 1e9:.0f} GB, {hours:.1f} h"
    memory = study.settings.gpu_memory
    return words if memory is not None and estimate.gpu_bytes <= memory * 1e9 else f"({words})"


def main() -> None:
    """Write the tables, and show them."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_text(TABLE, table())
    write_text(STEPS, steps())
    write_text(CHOICES, choices())
    show("docs/scaling.md")


if __name__ == "__main__":
    main()
