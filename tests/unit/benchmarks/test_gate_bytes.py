"""What the page says of a step's bytes is what is counted now, and what the kernels add is their least."""

import sys

import pandas as pd
import pytest
import torch

from leap_repro.prune.learned.fused import least_bytes


@pytest.fixture
def script(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    import gate_bytes

    yield gate_bytes
    for name in ("gate_bytes", "gates", "learned_memory", "measure"):
        sys.modules.pop(name, None)


def test_the_table_is_what_is_counted(script):
    written = pd.read_csv(script.TABLE, dtype=str)
    assert pd.DataFrame(script.rows()).astype(str).to_dict("records") == written.to_dict("records")


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("count", [1, 5])
def test_a_step_moves_the_gates_least_once_beside_a_dense_one(again, count, script):
    options = script.leap.Options(gradient_checkpointing=again)
    weight, logits = torch.bfloat16, torch.float32
    least = least_bytes(logits, weight) + least_bytes(logits, weight, torch.float32)
    dense, ours = (script.step_bytes(way, options, count) for way in ("dense", "kernels"))
    assert ours - dense == pytest.approx(least, abs=0.1)
