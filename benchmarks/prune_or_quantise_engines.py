"""What runs a language model, as a function that gives tokens a second of one prompt and of one generation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from measure import place

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT, GENERATED, TURNS = 256, 32, 5
"""Tokens of the prompt that is read, tokens that are generated behind a prompt of one, and how many turns there are."""
Turn = Callable[[], tuple[float, float]]
"""One turn: tokens a second of the prompt, and of the generation."""
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_vbmi2", "amx_bf16", "amx_int8")
"""Of the processor: those that make products of half precision or of 8 bits faster, or unpack."""
PRODUCT = """
import torch
torch.nn.functional.linear(torch.ones(256, 576).bfloat16(), torch.ones(512, 576).bfloat16())
"""


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


def openvino(folder: Path, threads: int, name: str) -> dict[str, Turn]:
    """{name: OpenVINO in bfloat16}; nothing if it is not installed. Its graph scores every token of the prompt, the
    others' the last one only."""
    try:
        from openvino import Core
    except ImportError:
        return {}
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads}
    request = Core().compile_model(str(folder / "openvino_model.xml"), "CPU", settings).create_infer_request()

    def seconds(ids: np.ndarray, count: int) -> float:
        request.reset_state()
        started, seen = time.perf_counter(), 0
        for _ in range(count):
            places = np.arange(seen, seen + ids.shape[1])[None]
            seen += ids.shape[1]
            given = {"input_ids": ids, "attention_mask": np.ones((1, seen), dtype=np.int64), "position_ids": places}
            request.infer(given | {"beam_idx": np.zeros(1, dtype=np.int32)})
            ids = request.get_tensor("logits").data[:, -1:].argmax(axis=-1)
        return time.perf_counter() - started

    ids = np.random.default_rng(0).integers(100, 1000, (1, PROMPT))
    return {name: lambda: (PROMPT / seconds(ids, 1), GENERATED / seconds(ids[:, :1], GENERATED))}


def processor() -> dict[str, Any]:
    """Where it is measured, and with what: those of FLAGS that the processor has."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    has = next(line for line in lines if line.startswith("flags")).split()
    flags = " ".join(flag for flag in FLAGS if flag in has)
    return place() | {"flags": flags, "torch multiplies by": torch_multiplies_by()}


def torch_multiplies_by() -> str:
    """The implementation that oneDNN says it chose for a product in bfloat16; its name has the instructions."""
    command = [sys.executable, "-c", PRODUCT]
    said = subprocess.run(command, capture_output=True, check=True, text=True, env=os.environ | {"ONEDNN_VERBOSE": "1"})
    found = [line.split(",")[6] for line in said.stdout.splitlines() if ",exec,cpu,matmul," in line]
    return found[0] if found else "its own loops"
