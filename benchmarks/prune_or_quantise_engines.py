"""What runs a language model, as a function that gives tokens a second of one prompt and of one generation."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from measure import place

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT, GENERATED, REPEATS = 512, 32, 5
"""Tokens of the prompt that is read, tokens that are generated behind a prompt of one, and how many turns there are."""
Turn = Callable[[], tuple[float, float]]
"""One turn: tokens a second of the prompt, and of the generation."""
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_vbmi2", "amx_bf16", "amx_int8")
"""Of the processor: those that make products of half precision or of 8 bits faster, or unpack."""


def transformers(model: PreTrainedModel) -> Turn:
    """The model's own `generate`, whatever its matrices are."""
    ids = torch.randint(100, 1000, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    model.generation_config.eos_token_id = None

    def seconds(prompt: torch.Tensor, count: int) -> float:
        started = time.perf_counter()
        model.generate(prompt, max_new_tokens=count, do_sample=False, use_cache=True, pad_token_id=0)
        return time.perf_counter() - started

    return lambda: (PROMPT / seconds(ids, 1), GENERATED / seconds(ids[:, :1], GENERATED))


def llama_cpp(bench: Path, file: Path, threads: int) -> Turn:
    """llama.cpp's own benchmark, one repetition a turn, after its own warm-up."""
    sizes = ("-p", PROMPT, "-n", GENERATED, "-r", 1, "-t", threads)
    command = [str(word) for word in (bench, "-m", file, *sizes, "-o", "json")]

    def turn() -> tuple[float, float]:
        found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        prompt, generated = (row["avg_ts"] for row in sorted(found, key=lambda row: row["n_gen"]))
        return prompt, generated

    return turn


def openvino(folder: Path, threads: int) -> Turn | None:
    """OpenVINO GenAI in bfloat16, by its own clocks; None if it is not installed."""
    try:
        import numpy as np
        import openvino_genai as genai
        from openvino import Tensor
    except ImportError:
        return None
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads}
    pipeline: Any = genai.LLMPipeline(str(folder), "CPU", **settings)
    ids = np.random.default_rng(0).integers(100, 1000, (1, PROMPT))

    def metrics(prompt: Any, count: int) -> Any:
        asked = genai.GenerationConfig(max_new_tokens=count, ignore_eos=True, do_sample=False)
        given = genai.TokenizedInputs(Tensor(prompt), Tensor(np.ones_like(prompt)))
        return pipeline.generate(given, asked).perf_metrics

    def turn() -> tuple[float, float]:
        read, generated = metrics(ids, 1), metrics(ids[:, :1].copy(), GENERATED)
        return PROMPT * 1000 / read.get_ttft().mean, 1000 / generated.get_tpot().mean

    return turn


def in_turn(engines: dict[str, Turn | None]) -> dict[str, dict[str, float]]:
    """{engine: tokens a second}, the medians of REPEATS turns of all that are there, after one that is not counted."""
    there = {name: turn for name, turn in engines.items() if turn is not None}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in there}
    for repeat in range(REPEATS + 1):
        for name, turn in there.items():
            speeds = turn()
            if repeat:
                found[name].append(speeds)
    return {name: _medians(turns) for name, turns in found.items()}


def _medians(turns: list[tuple[float, float]]) -> dict[str, float]:
    prompt, generated = zip(*turns, strict=True)
    return {"prefill": statistics.median(prompt), "decode": statistics.median(generated)}


def processor() -> dict[str, Any]:
    """Where it is measured, and with what: those of FLAGS that the processor has."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    has = next(line for line in lines if line.startswith("flags")).split()
    return place() | {"flags": " ".join(flag for flag in FLAGS if flag in has)}
