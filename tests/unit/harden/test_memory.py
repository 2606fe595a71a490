"""Hardening holds its work on one matrix and the packed masks, whatever the model's size: what the plan says of it.

RssAnon of /proc/self/status is what a process has of its own; pages of mapped files, which the kernel takes back when
it needs them, are not in it. A thread reads it every millisecond while the ordinary main function runs.
"""

import subprocess
import sys

import pytest
import torch

from leap_repro.costs.resources import harden_bytes
from leap_repro.sparsity.pruned import PrunedFolder
from leap_repro.store.artifacts import writing

SIDE, TILE, MATRICES = 1000, 40, 40
SCRIPT = """
import re, sys, threading, time
from pathlib import Path
from leap_repro.pipeline.stages.harden import main, parser

def anonymous():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))

def watch():
    while running:
        found.append(anonymous())
        time.sleep(0.001)

arguments = parser().parse_args(sys.argv[1:])
found, running = [anonymous()], True
thread = threading.Thread(target=watch)
thread.start()
main(arguments)
running = False
thread.join()
print(max(found) - found[0])
"""
FACTS = {
    "logits": {"pattern": "unstructured", "budget_scope": "global", "sparsity": "0.5"},
    "tiles": {"pattern": f"2:4+dense-tiles-{TILE}", "budget_scope": "tiles", "sparsity": "0.45"},
    "patterns": {"pattern": "2:4", "budget_scope": "tensor", "sparsity": "0.5"},
    "keep": {"pattern": "2:4", "budget_scope": "tensor", "sparsity": "0.5"},
}


def tensors(kind):
    """One matrix as a pruner leaves it: logits of which many are equal, 2:4 masks, or tiles over them."""
    scores = torch.randn(SIDE, SIDE)
    if kind == "logits":
        return {"logits": scores.half().float()}
    if kind == "patterns":
        return {"patterns": torch.randn(SIDE, SIDE // 4, 6)}
    keep = (scores.view(SIDE, -1, 4).argsort(-1).argsort(-1) >= 2).view(SIDE, SIDE)
    return {"keep": keep} | ({"tiles": torch.randn(SIDE // TILE, SIDE // TILE)} if kind == "tiles" else {})


@pytest.mark.parametrize("kind", FACTS)
def test_memory_is_what_the_plan_says_and_no_two_bytes_a_weight(kind, tmp_path):
    torch.manual_seed(0)
    with writing(tmp_path / "pruned", {}) as (payload, facts):
        store = PrunedFolder(payload)
        for block in range(MATRICES):
            made = {f"layers.{block}.weight.{part}": tensor for part, tensor in tensors(kind).items()}
            store.write(f"block-{block:05d}", made)
        facts |= FACTS[kind] | {"seed": 0, "tokens_sha256": None, "tensors": store.finish()}
    given = ["--pruned", str(tmp_path / "pruned"), "--cell", "a cell", "--output", str(tmp_path / "hard")]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *given], capture_output=True, text=True, check=True)
    weights = MATRICES * SIDE**2
    assert int(done.stdout) <= harden_bytes(weights, SIDE**2) <= 2 * weights


def test_the_plans_figure_is_two_bytes_a_weight_at_most_for_a_whole_model():
    assert harden_bytes(8.03e9, 4096 * 14336) <= 2 * 8.03e9
