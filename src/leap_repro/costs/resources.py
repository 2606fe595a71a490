"""What a job needs: memory and floating point operations, estimated from its model's sizes before any job has run.

The estimates are upper bounds for ordinary cases, not promises.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from leap_repro.costs.roofline import parts, step_seconds, way_of
from leap_repro.errors import UserError
from leap_repro.models.checkpoint import read_config, tensors
from leap_repro.models.sizes import Sizes, sizes_as_declared, sizes_of_files
from leap_repro.models.sources import source_of
from leap_repro.pipeline.grid import Method, Study
from leap_repro.prune.learned.declaration import DTYPE_BYTES, LoopOptions, TrainingOptions
from leap_repro.prune.learned.memory import training_bytes
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.store.machine import cpu_flags

GPU_FLOPS = 2e14  # per second, sustained: a fifth of an H100's bfloat16 peak
FLOAT32_COST = 15  # a GPU's float32 operation in bfloat16 ones, TF32 off: an H100's peaks, 989 and 67 x 10^12 a second
CORE_FLOPS = 5e10  # per second and core, sustained: products with AVX2 in float32
BFLOAT16_SPEED = 3  # products in bfloat16 by the processor's own instructions, in those in float32
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}  # in the kernel's list of what this processor has
GATE_FLOPS = 8000  # per logit whenever the masks of a training are made: they and their gradient
QUESTIONS = {  # of the six test sets; tokens that are read for each with its choices, by a tokenizer of 49,152 tokens
    "mmlu": (14_042, 126),
    "piqa": (1_838, 71),
    "arc_easy": (2_376, 105),
    "arc_challenge": (1_172, 134),
    "winogrande": (1_267, 43),
    "openbookqa": (500, 44),
}
TEXT_TOKENS = 310_000  # of WikiText-2's test, by the same tokenizer; fewer by a larger one
CALIBRATION_TOKENS = 8192  # in one forward pass of a layer-wise method
SELECTION_BYTES = 60  # per weight of the largest matrix: float32 copies, scores, a sort with its 64-bit positions
SOLVE_BYTES = 24  # per entry of the largest Gram matrix: Hessian, factor, inverse and the copies between them
EVALUATOR_BYTES = 3e8  # lm-eval and its requests, beside Python, torch and transformers
SCORES = 2**27  # of a perplexity at once: windows x length x vocabulary, or a part of one window's
QUESTION_TOKENS = 256  # of a long question with its answer, of which lm-eval scores a batch at once
HARDEN_BYTES = 24  # per weight of the largest matrix: its mask, the places of equal logits, sums over tiles
HARDEN_BUFFERS = 5e7  # a chunk of logits with its keys, and the counts of their digits
FACTS = {name: name for name in ("parameters", "prunable", "blocks", "largest_block")} | {"largest_gram": "gram"}
"""{what the manifest of the models stage calls a size: what `Sizes` does}"""


@dataclass(frozen=True)
class Need:
    """One job's estimate: bytes of each process on the host and on its GPU (0 without one), floating point operations
    of all together; of a training the seconds on its GPUs, by the roofline (`roofline.py`)."""

    host_bytes: float
    gpu_bytes: float = 0.0
    flops: float = 0.0
    gpu_seconds: float | None = None

    def seconds(self, study: Study, on_gpu: bool, processes: int) -> float:
        """How long it takes with so many processes."""
        if on_gpu and self.gpu_seconds is not None:
            return self.gpu_seconds
        return self.flops / flops_per_second(study, on_gpu) / processes


def model_sizes(study: Study, root: Path, model: str) -> Sizes:
    """Of a model of the study, whose results lie under `root`: as fetched, as it lies on this machine, or by what the
    configuration says of it."""
    spec, folder = study.models[model], root / "models" / model
    fetched = _facts(folder / "manifest.json")
    found = _of_folder(folder / "payload") or _of_local(spec)
    return replace(found or sizes_as_declared(spec), **fetched)


def _facts(manifest: Path) -> dict[str, int]:
    """What the models stage found, in this module's words; nothing before it."""
    try:
        facts = json.loads(manifest.read_text(encoding="utf-8"))["facts"]
        return {name: int(facts[key]) for key, name in FACTS.items() if key in facts}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _of_local(spec: dict[str, Any]) -> Sizes | None:
    """Of a model on this machine; None of another, or of one that is not where it should be: others say so."""
    try:
        folder = source_of(spec).folder(spec)
    except UserError:
        return None
    return _of_folder(folder) if folder else None


def _of_folder(folder: Path) -> Sizes | None:
    """Of a checkpoint; None if there is none, or if it cannot be read, which its reader says."""
    try:
        return sizes_of_files(tensors(folder), read_config(folder))
    except UserError:
        return None


def need(stage: str, study: Study, sizes: Sizes, method: str | None = None, model: str | None = None) -> Need:
    """The estimate for one job of `stage`; `method` names the cell's method in prune, harden and evaluate, `model` its
    model: without it what is `auto` is chosen for a model of these `sizes`."""
    weight = DTYPE_BYTES[study.settings.dtype]
    if stage == "prune" and method is not None:
        line = study.line(method, model) if model else study.fitted(method, sizes)
        estimate = _training if line.declaration.trains else _layer_wise
        return estimate(study, sizes, weight, line)
    if stage == "harden":
        return Need(harden_bytes(sizes.parameters, sizes.largest))
    if stage == "evaluate":
        memory = sizes.parameters * 2 * weight + scores_bytes(study, sizes.vocabulary, weight)
        host = sizes.parameters * (2 * weight + 1) + EVALUATOR_BYTES
        return Need(host, memory, 2 * sizes.parameters * evaluation_tokens(study))
    if stage in ("models", "data", "calibration"):
        return Need(2e9)  # a shard of C4 as text
    return Need(0)


def harden_bytes(parameters: float, largest: float) -> float:
    """What a hardening holds besides files that it maps: the packed masks, and its work on the largest matrix."""
    return parameters / 8 + HARDEN_BYTES * largest + HARDEN_BUFFERS


def evaluation_tokens(study: Study) -> int:
    """How many tokens a cell's evaluation reads: of the questions that are asked and of the windows of each length."""
    asked = study.settings.evaluation
    known = study.settings.data.tasks.evaluation_tokens
    if known is not None:
        return known
    questions = sum(min(held, asked.questions or held) * tokens for held, tokens in QUESTIONS.values())
    windows = asked.perplexity_windows or TEXT_TOKENS
    return questions + sum(min(TEXT_TOKENS, windows * length) for length in asked.perplexity_lengths)


def scores_bytes(study: Study, rows: float, weight: int) -> float:
    """What an evaluation holds of scores over a vocabulary of so many rows: those of a perplexity's pass, or of a batch
    of questions with their logarithms."""
    settings = study.settings.evaluation
    asked = settings.batch_size * max(settings.perplexity_lengths) * rows
    perplexity = min(asked, SCORES) * weight + SCORES  # a part's copy and logarithms: 8 bytes for an eighth
    return max(perplexity, settings.batch_size * QUESTION_TOKENS * rows * 2 * max(weight, 4))


def _layer_wise(study: Study, sizes: Sizes, weight: int, method: Method) -> Need:
    """Blocks are streamed: the embeddings, two blocks and what one block's pruning works with (docs/plan.md)."""
    width, inner, block = sizes.hidden, sizes.widest, sizes.largest_block
    resident = (sizes.vocabulary * width + 2 * block) * weight
    work = SELECTION_BYTES * width * inner
    flops = 0.0
    if method.tokens:
        shard = study.settings.calibration
        tokens = (method.training_sequences or shard.sequences) * shard.length
        passing = min(tokens, max(shard.length, CALIBRATION_TOKENS))
        work += tokens * width * weight + passing * ((4 * inner + 8 * width) * weight + 4 * inner)
        own = 4 * sizes.parameters * tokens + 60 * sizes.parameters * width
        flops = 4 * sizes.parameters * tokens + own
        if (
            getattr(method.declaration, "statistics", None) == "gram"
        ):  # it solves with the Gram matrix of every matrix's inputs
            work += 4 * sizes.gram + SOLVE_BYTES * inner**2
            exact = own + _solve_flops(method, sizes)
            flops += exact * _float32_cost(study) - own
    return Need(resident + block * (1.2 + 2 * weight), resident + work if method.tokens else 0, flops)


def _solve_flops(method: Method, sizes: Sizes) -> float:
    """What a method solves beyond the others, at the least of its sparsities: in a block 8 D rows of D inputs and D
    rows of 4 D."""
    if not sizes.parameters:
        return 0.0
    width = sizes.hidden
    kept = 1 - min(float(parse_sparsity(sparsity)) for sparsity in method.sparsities)
    shapes = ((8 * width, width), (width, 4 * width))
    block = sum(method.options.operations(rows, columns, kept * columns) for rows, columns in shapes)
    return block * sizes.parameters / (12 * width**2)


def _training(study: Study, sizes: Sizes, weight: int, method: Method) -> Need:
    """Memory by its one formula (`memory.py`). A pass is 2 operations a weight and token, and twice as many backwards;
    blocks that are made again pass once more. Gates are made once a step, or for every micro-batch."""
    options, shard, dtype = method.options, study.settings.mask_training, study.settings.dtype
    if shard is None or not isinstance(options, LoopOptions):
        raise TypeError(f"{method.name} is no training that can run")  # the study's checks refused it
    length, device = shard.length, "cuda" if study.settings.cluster.gpus else "cpu"
    tokens = method.trained_sequences * length
    step = step_seconds(parts(sizes, options, way_of(sizes, options, dtype), length, method.gpus))
    found = Need(
        host_bytes=3 * weight * sizes.parameters + sizes.prunable,  # reading the model; writing its values and masks
        gpu_bytes=sum(training_bytes(sizes, options, dtype, length, method.gpus, device).values()),
        flops=sizes.parameters * tokens * (8 if options.gradient_checkpointing else 6),
        gpu_seconds=options.steps * step,
    )
    if not isinstance(options, TrainingOptions):
        return found
    once = options.keeps_products and options.noise == "step"
    made = options.steps * (1 if once else options.batch_size / options.micro_batch_size)
    logits = sizes.prunable * options.logits_per_weight
    flops = 8 * sizes.parameters * tokens + GATE_FLOPS * logits * made
    host = 2 * weight * sizes.parameters + options.logit_bytes * logits
    return replace(found, host_bytes=host, flops=flops)


def flops_per_second(study: Study, on_gpu: bool) -> float:
    """The rate that a job of this study is expected to sustain, in the study's type."""
    if on_gpu:
        return GPU_FLOPS
    return CORE_FLOPS * study.settings.threads * (BFLOAT16_SPEED if _bfloat16_on_cpu(study) else 1)


def _float32_cost(study: Study) -> float:
    """An operation in float32 in those that `flops_per_second` counts."""
    if study.settings.cluster.gpus:
        return FLOAT32_COST
    return BFLOAT16_SPEED if _bfloat16_on_cpu(study) else 1


def _bfloat16_on_cpu(study: Study) -> bool:
    return study.settings.dtype == "bfloat16" and multiplies_bfloat16()


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products in bfloat16."""
    return bool(BFLOAT16_FLAGS & cpu_flags())
