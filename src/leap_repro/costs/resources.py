"""What a job needs: memory and floating point operations, estimated from its model's size before any job has run.

One rule of thumb makes the size of a model enough: the width of a decoder of P parameters is about 2 P^(1/3) (Llama 8B:
4,000 against the true 4,096; 1B: 2,000 against 2,048). The estimates are upper bounds for ordinary cases, not promises.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from leap_repro.errors import UserError
from leap_repro.models.checkpoint import Entry, largest_block, tensors
from leap_repro.pipeline.grid import Method, Study
from leap_repro.prune.learned.declaration import DTYPE_BYTES, LoopOptions, tokens_at_once
from leap_repro.sparsity.budget import parse_sparsity

UNKNOWN_PARAMETERS = 8_000_000_000
"""A model of which nobody said how large it is counts as the paper's largest."""

GPU_FLOPS = 2e14  # per second, sustained: a fifth of an H100's bfloat16 peak
FLOAT32_COST = 15  # a GPU's float32 operation in bfloat16 ones, TF32 off: an H100's peaks, 989 and 67 x 10^12 a second
CORE_FLOPS = 5e10  # per second and core, sustained: products with AVX2 in float32
GATE_FLOPS = 8000  # per logit and forward pass of a training: its masks, which are made anew, and their gradient
QUESTIONS = {  # of the six test sets; tokens that are read for each with its choices, by a tokenizer of 49,152 tokens
    "mmlu": (14_042, 126),
    "piqa": (1_838, 71),
    "arc_easy": (2_376, 105),
    "arc_challenge": (1_172, 134),
    "winogrande": (1_267, 43),
    "openbookqa": (500, 44),
}
TEXT_TOKENS = 310_000  # of WikiText-2's test, by the same tokenizer; fewer by a larger one
VOCABULARY = 160_000  # rows of the embeddings: between Llama's 128,256 and Gemma's 262,144
CALIBRATION_TOKENS = 8192  # in one forward pass of a layer-wise method
SELECTION_BYTES = 60  # per weight of the largest matrix: float32 copies, scores, a sort with its 64-bit positions
SOLVE_BYTES = 24  # per entry of the largest Gram matrix: Hessian, factor, inverse and the copies between them
MINIATURE_EVALUATION_TOKENS = 500_000
EVALUATOR_BYTES = 3e8  # lm-eval and its requests, beside Python, torch and transformers
SCORES = 2**27  # of a perplexity at once: windows x length x vocabulary, or a part of one window's
QUESTION_TOKENS = 256  # of a long question with its answer, of which lm-eval scores a batch at once
MATRIX_BYTES = 24  # per weight of the largest matrix: six float32 copies while its mask is differentiated
HARDEN_BYTES = 24  # per weight of the largest matrix: its mask, the places of equal logits, sums over tiles
HARDEN_BUFFERS = 5e7  # a chunk of logits with its keys, and the counts of their digits


@dataclass(frozen=True)
class Need:
    """One job's estimate: bytes of each process on the host and on its GPU (0 without one), floating point operations
    of all together."""

    host_bytes: float
    gpu_bytes: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True)
class Block:
    """The largest decoder block of a model: its parameters, and the entries of its matrices' Gram matrices, of which
    every expert of a mixture has its own. The rule of thumb knows neither."""

    parameters: int
    gram: int


def largest_block_of(spec: dict[str, Any], fetched: Path) -> Block | None:
    """The largest block as the models stage found it, else by the files of a local model; None for one of the hub that
    is not fetched."""
    try:
        facts = json.loads(fetched.read_text(encoding="utf-8"))["facts"]
        return Block(int(facts["largest_block"]), int(facts["largest_gram"]))
    except (OSError, ValueError, KeyError, TypeError):
        found = local_tensors(spec)
        return Block(*largest_block(found)) if found else None


def local_tensors(spec: dict[str, Any]) -> dict[str, Entry]:
    """The headers of a model on this machine; none of another, or if they cannot be read, which their reader says."""
    released = Path(str(files("leap_repro"))) / "miniature/released"
    folder = {"bundled": released / spec.get("name", ""), "path": Path(spec.get("path", "")).expanduser()}
    try:
        return tensors(folder[spec["source"]])
    except (KeyError, UserError):
        return {}


def parameters_of(spec: dict[str, Any], fetched: Path) -> int:
    """How many parameters a model has: as fetched, else as the config says, else as its local weight files say.

    `spec` is the model's entry in the config, `fetched` the manifest of the models stage, which need not be there.
    """
    try:
        return int(json.loads(fetched.read_text(encoding="utf-8"))["facts"]["parameters"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    declared = spec.get("parameters") or (spec.get("expect") or {}).get("parameters")
    if declared:
        return int(declared)
    return sum(entry.elements for entry in local_tensors(spec).values()) or UNKNOWN_PARAMETERS


def model_size(study: Study, root: Path, model: str) -> tuple[int, Block | None]:
    """(parameters, largest block if known) of a model of the study, whose results lie under `root`."""
    fetched = root / "models" / model / "manifest.json"
    return parameters_of(study.models[model], fetched), largest_block_of(study.models[model], fetched)


def width_of(parameters: int) -> float:
    """The rule of thumb for the width of a decoder's residual stream."""
    return 2 * parameters ** (1 / 3)


def vocabulary_of(parameters: int) -> float:
    """Rows of the embeddings: VOCABULARY, but for a tiny model, whose embeddings hold no more than all its weights."""
    return min(VOCABULARY, parameters / width_of(parameters)) if parameters else 0


def prunable_of(parameters: int) -> float:
    """The rule of thumb for the weights that are pruned: all but the embeddings, and half of all at the least."""
    return max(parameters / 2, parameters - vocabulary_of(parameters) * width_of(parameters))


def need(stage: str, study: Study, parameters: int, method: str | None = None, block: Block | None = None) -> Need:
    """The estimate for one job of `stage`; `method` names the cell's method in prune, harden and evaluate, `block` is
    the model's largest where that is known."""
    weight = DTYPE_BYTES[study.settings.dtype]
    if stage == "prune" and study.methods[method].declaration.leaves_logits:
        return _learned(study, parameters, weight, study.methods[method])
    if stage == "prune" and study.methods[method].declaration.trains:
        return _recovery(study, parameters, weight, study.methods[method])
    if stage == "prune":
        return _layer_wise(study, parameters, weight, study.methods[method], block)
    if stage == "harden":
        width = width_of(parameters)
        return Need(harden_bytes(parameters, 4 * width**2))
    if stage == "evaluate":
        tokens = evaluation_tokens(study)
        memory = parameters * 2 * weight + scores_bytes(study, parameters, weight)
        return Need(parameters * (2 * weight + 1) + EVALUATOR_BYTES, memory, 2 * parameters * tokens)
    if stage in ("models", "data", "calibration"):
        return Need(2e9)  # a shard of C4 as text
    return Need(0)


def harden_bytes(parameters: float, largest: float) -> float:
    """What a hardening holds besides files that it maps: the packed masks, and its work on the largest matrix."""
    return parameters / 8 + HARDEN_BYTES * largest + HARDEN_BUFFERS


def evaluation_tokens(study: Study) -> int:
    """How many tokens a cell's evaluation reads: of the questions that are asked and of the windows of each length."""
    asked = study.settings.evaluation
    if study.settings.data.tasks.source == "bundled":
        return MINIATURE_EVALUATION_TOKENS
    questions = sum(min(held, asked.questions or held) * tokens for held, tokens in QUESTIONS.values())
    windows = asked.perplexity_windows or TEXT_TOKENS
    return questions + sum(min(TEXT_TOKENS, windows * length) for length in asked.perplexity_lengths)


def scores_bytes(study: Study, parameters: int, weight: int) -> float:
    """What an evaluation holds of scores over the vocabulary: those of a perplexity's pass, or of a batch of questions
    with their logarithms."""
    rows, settings = vocabulary_of(parameters), study.settings.evaluation
    asked = settings.batch_size * max(settings.perplexity_lengths) * rows
    perplexity = min(asked, SCORES) * weight + SCORES  # a part's copy and logarithms: 8 bytes for an eighth
    return max(perplexity, settings.batch_size * QUESTION_TOKENS * rows * 2 * max(weight, 4))


def _layer_wise(study: Study, parameters: int, weight: int, method: Method, known: Block | None) -> Need:
    """Blocks are streamed: the embeddings, two blocks and what one block's pruning works with (docs/plan.md)."""
    width = width_of(parameters)
    inner, block = 4 * width, max(12 * width**2, known.parameters if known else 0)
    gram = max(6 * width**2 + inner**2, known.gram if known else 0)
    resident = (vocabulary_of(parameters) * width + 2 * block) * weight
    work = SELECTION_BYTES * width * inner
    flops = 0.0
    if method.tokens:
        shard = study.settings.calibration
        tokens = shard.sequences * shard.length
        passing = min(tokens, max(shard.length, CALIBRATION_TOKENS))
        work += tokens * width * weight + passing * ((4 * inner + 8 * width) * weight + 4 * inner)
        flops = 8 * parameters * tokens + 60 * parameters * width
        if method.declaration.statistics == "gram":  # it solves with the Gram matrix of every matrix's inputs
            work += 4 * gram + SOLVE_BYTES * inner**2
            exact = 4 * parameters * tokens + 60 * parameters * width + _solve_flops(method, parameters)
            flops = 4 * parameters * tokens + exact * (FLOAT32_COST if study.settings.cluster.gpus else 1)
    return Need(resident + block * (1.2 + 2 * weight), resident + work if method.tokens else 0, flops)


def _solve_flops(method: Method, parameters: int) -> float:
    """What a method solves beyond the others, at the least of its sparsities: in a block 8 D rows of D inputs and D
    rows of 4 D."""
    if not parameters:
        return 0.0
    width = width_of(parameters)
    kept = 1 - min(float(parse_sparsity(sparsity)) for sparsity in method.sparsities)
    shapes = ((8 * width, width), (width, 4 * width))
    block = sum(method.options.operations(rows, columns, kept * columns) for rows, columns in shapes)
    return block * parameters / (12 * width**2)


def _learned(study: Study, parameters: int, weight: int, method: Method) -> Need:
    """Weights, logits with two moments, gradients and masks, one matrix at work, one micro-batch's activations and its
    float32 scores over the vocabulary (docs/plan.md). Each of several processes has its share of what lasts, and
    gathers the embeddings and two blocks."""
    options, length, count = method.options, study.settings.mask_training.length, method.gpus
    width = width_of(parameters)
    inner, block = 4 * width, 12 * width**2
    tokens = options.micro_batch_size * length
    per_weight = options.logits_per_weight
    kept = 1 if options.gradient_checkpointing else parameters / block
    logits = per_weight * options.logit_bytes
    lasting = weight + logits + 2 * per_weight * options.moment_bytes
    own = options.frozen_mask_bytes + options.gradient_bytes + 4 * (kept > 1)
    vocabulary = vocabulary_of(parameters)
    gathered = (vocabulary * width * weight + 2 * block * (weight + logits)) * (count > 1)
    state = parameters * (lasting / count + own) + gathered
    working = MATRIX_BYTES * width * inner * (1 + per_weight)
    passes = options.steps * options.batch_size / options.micro_batch_size
    flops = parameters * passes * (8 * tokens + GATE_FLOPS * per_weight)
    passing = _passing_bytes(parameters, weight, options, length)
    return Need(parameters * (2 * weight + logits), state + working + passing, flops)


def _passing_bytes(parameters: int, weight: int, options: LoopOptions, length: int) -> float:
    """What a micro-batch of sequences so long keeps for the backward pass: activations, and scores over the vocabulary
    in float32."""
    width, vocabulary, tokens = width_of(parameters), vocabulary_of(parameters), options.micro_batch_size * length
    blocks = parameters / (12 * width**2)
    kept = 1 if options.gradient_checkpointing else blocks
    activations = tokens * weight * ((16 * width + 5 * 4 * width) * kept + width * blocks)
    return activations + min(tokens, tokens_at_once(vocabulary)) * vocabulary * (2 * weight + 8)


def _recovery(study: Study, parameters: int, weight: int, method: Method) -> Need:
    """The model, what is trained of it with two moments and its gradient, masks, one matrix at work, one micro-batch
    (docs/plan.md). A pass is 2 operations a weight and token, and twice as many backwards; blocks that are made again
    pass once more."""
    options, length = method.options, study.settings.mask_training.length
    width = width_of(parameters)
    state = parameters * (weight + options.lasting_bytes(weight, width))
    working = MATRIX_BYTES * 4 * width**2
    tokens = options.steps * options.batch_size * length
    flops = parameters * tokens * (8 if options.gradient_checkpointing else 6)
    host = parameters * (3 * weight + 1)  # reading the model; writing its values and masks
    return Need(host, state + working + _passing_bytes(parameters, weight, options, length), flops)


def flops_per_second(study: Study, on_gpu: bool) -> float:
    """The rate that a job of this study is expected to sustain."""
    return GPU_FLOPS if on_gpu else CORE_FLOPS * study.settings.threads
