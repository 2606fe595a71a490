"""Do two makers' processors give the same bits? Every operator of every method, here and on emulated processors.

`python benchmarks/portable_operators.py` runs the miniature's models and methods on this machine and again under QEMU
(`qemu-x86_64`, Debian's qemu-user), which passes itself off as other processors, with their instructions only, and
compares what each call of each operator returned. Writes benchmarks/portable_operators.csv and .md. About half an hour.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import leap_repro
from leap_repro.portable import pin

pin()  # before torch is loaded

PROCESSORS = {"AMD EPYC": "EPYC", "Intel Haswell": "Haswell"}
UNSET = ("aten.empty", "aten.new_empty", "aten.resize")  # what they return holds anything
HERE = Path(__file__).with_suffix(".csv")
SHORT = {"steps": 2, "batch_size": 2, "micro_batch_size": 2, "learning_rate": 3e-3}
Methods = tuple[tuple[str, dict[str, Any], str | None], ...]
LAYER_WISE: Methods = tuple((name, {}, None) for name in ("magnitude", "wanda", "sparsegpt", "thanos", "admm"))
LAYER_WISE += (("optima", {}, "wanda"), ("sparsegpt", {"pattern": "2:4"}, None))
TRAINED: Methods = (("leap", SHORT, None), ("maskllm", SHORT, None))
TOKENS = 64


def trace(output: Path) -> None:
    """Write a line per operator call: its name and the sha256 of what it returned."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from leap_repro.portable.install import use_portable_kernels

    torch.set_num_threads(1)
    use_portable_kernels("float32")

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            digest = hashlib.sha256()
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
                    digest.update(leaf.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            print(str(func), digest.hexdigest()[:16], file=file)
            return result

    with output.open("w") as file, Log():
        exercise("qwen2.5-0.5b-mini", TRAINED)
        exercise("gemma3-1b-mini", TRAINED)
        exercise("llama3.2-1b-mini", LAYER_WISE + TRAINED)


def exercise(name: str, methods: Methods) -> None:
    """A forward pass of one bundled model, and each method on it."""
    from torch import arange

    from leap_repro.evaluate.perplexity import window_losses
    from leap_repro.models.load import load_model
    from leap_repro.prune.job import Job
    from leap_repro.prune.run import arithmetic, load_method, load_selector

    folder = Path(leap_repro.__file__).parent / "miniature/released" / name
    tokens = (arange(8 * TOKENS) * 37 % 401).view(8, TOKENS)
    window_losses(load_model(folder), tokens, 4)
    for method, options, selected_by in methods:
        declared, checked = load_method(method, options)
        selector = load_selector({"module": selected_by} if selected_by else None)
        with arithmetic(declared):
            declared.prune_cell(Job(load_model(folder), checked, Fraction(1, 2), 0, tokens, selector=selector))


def traced(command: list[str], output: Path) -> list[tuple[str, str]]:
    """Run `trace` in a process of its own, by way of `command`; its lines."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    own = [sys.executable, __file__, "--trace", str(output)]
    subprocess.run([*command, *own], check=True, env=os.environ | threads, stderr=subprocess.DEVNULL)
    lines = [tuple(line.split()) for line in output.read_text().splitlines()]
    return [line for line in lines if not line[0].startswith(UNSET)]


def main() -> None:
    """Trace here, then on each emulated processor, and compare."""
    import tempfile

    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        here = traced([], Path(folder) / "here")
        calls = Counter(name for name, _ in here)
        table = pd.DataFrame({"operator": list(calls), "calls": list(calls.values())}).set_index("operator")
        for title, processor in PROCESSORS.items():
            there = traced(["qemu-x86_64", "-cpu", processor], Path(folder) / processor)
            # Counted, not paired: a model may go through a set of its rotary embeddings in any order.
            other = Counter(name for name, _ in (Counter(here) - Counter(there)).elements())
            table[f"other on {title}"] = [other[name] for name in table.index]
    table = table.sort_index()
    table.to_csv(HERE)
    sums = [f"{title}: {int(table[f'other on {title}'].sum())} of {int(table['calls'].sum())}" for title in PROCESSORS]
    sentence = (
        f"{len(table)} operators; calls that returned other bits on an emulated {'; on an emulated '.join(sums)}.\n"
    )
    HERE.with_suffix(".md").write_text(sentence)
    print(sentence, table[(table.drop(columns="calls") > 0).any(axis=1)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="only trace this machine, into this file")
    arguments = parser.parse_args()
    if arguments.trace:
        trace(arguments.trace)
    else:
        main()
