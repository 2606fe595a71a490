"""The formula of a training's peak memory against the peak that a real training has."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from leap_repro.prune.learned.memory import Sizes, training_bytes
from leap_repro.prune.methods.leap import Options

CASES = {
    "leap": ("leap", {}),
    "leap, no accumulation, moments in bfloat16": ("leap", {"batch_size": 1, "state_dtype": "bfloat16"}),
    "maskllm": ("maskllm", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_formula_is_near_the_measured_peak(case, project):
    gate, options = CASES[case]
    script = [sys.executable, "benchmarks/learned_memory.py", "--gate", gate, "--options", json.dumps(options)]
    found = subprocess.run([*script, "--length", "16"], cwd=project, check=True, capture_output=True, text=True)
    row = json.loads(found.stdout.splitlines()[-1])
    assert row["measured_mb"] > 20
    assert 0.8 < row["measured_over_predicted"] < 1.25, row
    assert 0 < row["gates_share"] < 1


def test_sizes_are_the_models_own(build_tiny):
    model = build_tiny("llama")
    sizes = Sizes.of(model)
    assert sizes.parameters == sum(tensor.numel() for tensor in model.state_dict().values())
    assert sizes.prunable == 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    assert (sizes.largest, sizes.hidden, sizes.widest, sizes.blocks, sizes.vocabulary) == (1536, 32, 48, 3, 64)


def test_each_saving_saves_what_it_says(build_tiny):
    sizes = Sizes.of(build_tiny("llama"))

    def peak(**options):
        return training_bytes(sizes, Options(**options), "bfloat16", length=8)

    plain, halved = peak(), peak(state_dtype="bfloat16")
    assert plain["moments"] - halved["moments"] == 2 * 2 * sizes.prunable
    assert peak(gradient_checkpointing=True)["masks"] == 0
    assert plain["masks"] == 4 * sizes.prunable
    assert peak(gradient_checkpointing=True)["activations"] < plain["activations"]
