"""Whatever a machine's environment asks its libraries for, the same bits come out.

Real processors of other makers cannot be had in a test: benchmarks/portable_operators.py emulates them, and these tests
hold what the methods compute with to the operators that were found the same there.
"""

import os
import subprocess
import sys

import pandas as pd
import pytest

from leap_repro.portable import LIBRARIES

# What other machines' settings, and libraries that find fewer instructions, would do to the bits without the pinning.
ENVIRONMENTS = [
    {},
    {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Nehalem", "MKL_CBWR": "COMPATIBLE"},
    {"ATEN_CPU_CAPABILITY": "avx512", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"},
]
SCRIPT = """
from leap_repro.portable import pin
pin()
from leap_repro.portable.install import use_portable_kernels
import hashlib, torch
from fractions import Fraction
use_portable_kernels("float32")
from transformers import LlamaConfig, LlamaForCausalLM
from leap_repro.models.load import ready
from leap_repro.prune.run import load_method
from leap_repro.prune.job import Job
shape = dict(vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=3,
             num_key_value_heads=3)
digest = hashlib.sha256()
for name, options in (("admm", {}), ("thanos", {}), ("leap", {"steps": 3, "batch_size": 2, "micro_batch_size": 1})):
    torch.manual_seed(0)
    model = ready(LlamaForCausalLM(LlamaConfig(**shape)))
    tokens = (torch.arange(512) * 37 % 97).view(8, 64)
    method, options = load_method(name, options)
    cell = method.prune_cell(Job(model, options, Fraction(1, 2), 0, tokens))
    for tensor in cell.tensors.values():
        digest.update(tensor.contiguous().numpy().tobytes())
print(digest.hexdigest())
"""


def digest(environment):
    clean = {key: value for key, value in os.environ.items() if key not in LIBRARIES}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=clean | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_no_setting_of_the_environment_changes_a_bit():
    assert len({digest(environment) for environment in ENVIRONMENTS}) == 1


@pytest.fixture
def operators(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    import portable_operators

    yield portable_operators
    sys.modules.pop("portable_operators", None)


@pytest.mark.slow
def test_every_operator_that_a_method_calls_was_found_the_same_on_emulated_processors(operators, project, tmp_path):
    called = {name for name, _ in operators.traced([], tmp_path / "calls")}
    checked = pd.read_csv(project / "benchmarks/portable_operators.csv", index_col="operator")
    assert called <= set(checked.index)
    assert checked.filter(like="other on").to_numpy().sum() == 0
