"""Peak memory of layer-wise pruning at the real shapes, without the real weights: random ones do as well.

    python benchmarks/memory_at_size.py --shape llama3.2-1b --method wanda

makes a random checkpoint of that shape in a temporary folder, runs the ordinary `python -m leap_repro.pipeline prune`
on it, and adds one row to `benchmarks/memory_at_size.csv`, to which `docs/plan.md` links: its peak resident memory
as the kernel counted it (`wait4`), beside the estimate of `leap_repro.costs.resources` for the model of that name and
the size of the whole model, which was never in memory, and its time by the wall and of the CPU. `--blocks` shows that
the number of blocks does not matter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from measure import REPOSITORY, add_row
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from leap_repro.costs.plan import PROCESS_BYTES
from leap_repro.costs.resources import need
from leap_repro.models.sizes import sizes_by_rule_of_thumb
from leap_repro.pipeline.config import Shard
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.seeds import named_seed
from leap_repro.store.artifacts import writing

LLAMA = {"vocab_size": 128256, "tie_word_embeddings": True, "max_position_embeddings": 131072}
SHAPES = {
    "tiny": LLAMA | {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1},
    "llama3.2-1b": LLAMA
    | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    | {"num_attention_heads": 32, "num_key_value_heads": 8},
    "llama3.1-8b-block": LLAMA
    | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 1}
    | {"num_attention_heads": 32, "num_key_value_heads": 8},
}
"""`tiny` shows what Python, torch and transformers cost by themselves."""
TABLE = Path(__file__).with_suffix(".csv")


def random_model(shape: dict, folder: Path) -> dict[str, int]:
    """Write a random bfloat16 checkpoint, a file per block, never holding more than that; returns its sizes."""
    config = LlamaConfig(**shape, dtype="bfloat16")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    config.save_pretrained(folder)
    parts = list(_parts(model))
    places = {}
    for number, names in enumerate(parts, start=1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        save_file({name: _random(name, model.get_parameter(name)) for name in names}, folder / file)
        places |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    blocks = sum(parameter.numel() for parameter in model.model.layers.parameters())
    return {"parameters": model.num_parameters(), "in_blocks": blocks}


def _parts(model: torch.nn.Module) -> Iterator[list[str]]:
    names = [name for name, _ in model.named_parameters()]
    prefixes = [f"model.layers.{index}." for index in range(len(model.model.layers))]
    yield [name for name in names if not name.startswith("model.layers.")]
    for prefix in prefixes:
        yield [name for name in names if name.startswith(prefix)]


def _random(name: str, like: torch.Tensor) -> torch.Tensor:
    """Normal weights as at the start of a training; ones for the norms."""
    if like.dim() == 1:
        return torch.ones(like.shape, dtype=like.dtype)
    generator = torch.Generator().manual_seed(named_seed(name))
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).mul_(0.02).to(like.dtype)


def random_tokens(shape: dict, sequences: int, length: int, folder: Path) -> dict[str, str]:
    """Write a token shard; returns its facts."""
    generator = torch.Generator().manual_seed(named_seed("tokens"))
    tokens = torch.randint(0, shape["vocab_size"], (sequences, length), generator=generator, dtype=torch.int32)
    save_file({"tokens": tokens}, folder / "tokens.safetensors")
    return {"recipe": "windows", "ids_sha256": hashlib.sha256(tokens.numpy().tobytes()).hexdigest()}


def run_measured(command: list[str]) -> dict[str, int]:
    """Peak resident megabytes, seconds by the wall and of the CPU of a child process, and the threads that torch may
    use in it; CalledProcessError if it fails."""
    started = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, command)
    return {
        "peak_mb": round(usage.ru_maxrss * 1024 / 1e6),
        "seconds": round(time.perf_counter() - started),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime),
        "threads": torch.get_num_threads(),
    }


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Prune a random model in `folder` by the real command line; one row for the table."""
    shape = dict(SHAPES[arguments.shape])
    if arguments.blocks:
        shape |= {"num_hidden_layers": arguments.blocks}
    with writing(folder / "model", {}) as (payload, facts):
        facts |= random_model(shape, payload)
    with writing(folder / "tokens", {}) as (payload, token_facts):
        token_facts |= random_tokens(shape, arguments.sequences, arguments.length, payload)
    command = [
        sys.executable,
        "-m",
        "leap_repro.pipeline",
        "prune",
        "--model",
        folder / "model",
        "--tokens",
        folder / "tokens",
    ]
    command += ["--module", arguments.method, "--sparsity", "0.5", "--dtype", "bfloat16", "--output", folder / "pruned"]
    command += ["--options", arguments.options]
    measured = run_measured([str(part) for part in command])
    written = sum(path.stat().st_size for path in (folder / "pruned/payload").iterdir())
    return {
        "shape": arguments.shape,
        "blocks": shape["num_hidden_layers"],
        "method": arguments.method,
        "options": arguments.options,
        "sequences": arguments.sequences,
        "length": arguments.length,
        "whole_model_mb": round(2 * facts["parameters"] / 1e6),
        "estimate_mb": estimate_mb(arguments.shape, arguments.method, arguments.sequences, arguments.length),
        "written_mb": round(written / 1e6),
        **measured,
    }


def estimate_mb(shape: str, method: str, sequences: int, length: int) -> int | None:
    """What the plan would say of this job, of a block as of its whole model; None for a shape that is none of the
    paper's."""
    config = read_config(project=REPOSITORY)
    study = read_study(config | {"scale": "paper"})
    model = study.models.get(shape.removesuffix("-block"))
    if model is None:
        return None
    shard = Shard(sequences=sequences, length=length)
    study = replace(study, settings=study.settings.model_copy(update={"calibration": shard}))
    estimate = need("prune", study, sizes_by_rule_of_thumb(model["parameters"]), method)
    return round((PROCESS_BYTES + max(estimate.host_bytes, estimate.gpu_bytes)) / 1e6)


def main() -> None:
    """Measure one job and write its row down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--method", choices=("magnitude", "wanda", "sparsegpt", "thanos", "admm"), required=True)
    parser.add_argument("--options", default="{}", help="of the method (ADMM: memory does not depend on iterations)")
    parser.add_argument("--blocks", type=int, help="decoder blocks, instead of the shape's own number")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=128, help="tokens per sequence")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made (3 to 8 GB)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        row = measure(arguments, Path(folder))
    add_row(TABLE, row, key=("shape", "blocks", "method", "options", "sequences", "length"))
    print(row)


if __name__ == "__main__":
    main()
