"""Strict determinism and float32 in full hold within, and not afterwards; CUDA is told before it starts."""

import os
import subprocess
import sys

import pytest
import torch

from leap_repro.portable import ALLOCATOR, ALLOCATOR_NAMES, CUBLAS, prepare_cuda
from leap_repro.portable.deterministic import deterministic
from leap_repro.prune.methods import declaration
from leap_repro.prune.run import arithmetic

HELD = {
    "strict": True,
    "only warns": False,
    "fills memory": False,
    "products": "highest",
    "generic": "ieee",
    "cuDNN": "ieee",
    "cuBLAS": "ieee",
    "convolutions": "ieee",
    "recurrent": "ieee",
}


def switches():
    backends = torch.backends
    return {
        "strict": torch.are_deterministic_algorithms_enabled(),
        "only warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fills memory": torch.utils.deterministic.fill_uninitialized_memory,
        "products": torch.get_float32_matmul_precision(),
        "generic": backends.fp32_precision,
        "cuDNN": backends.cudnn.fp32_precision,
        "cuBLAS": backends.cuda.matmul.fp32_precision,
        "convolutions": backends.cudnn.conv.fp32_precision,
        "recurrent": backends.cudnn.rnn.fp32_precision,
    }


@pytest.mark.parametrize("method", ["wanda", "leap"])
def test_the_switches_hold_while_a_cell_is_pruned_and_no_longer(method):
    before = switches()
    with arithmetic(declaration(method)):
        assert switches() == HELD
    assert switches() == before != HELD


def test_they_hold_after_one_within_another_and_are_turned_back_by_an_error():
    before = switches()

    def compute():
        with deterministic():
            with deterministic():
                pass
            assert switches() == HELD
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        compute()
    assert switches() == before


OLDER_SWITCHES = """
import torch
from leap_repro.portable.deterministic import deterministic
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
torch.use_deterministic_algorithms(True, warn_only=True)
with deterministic():
    assert not torch.backends.cuda.matmul.allow_tf32
    square = torch.compile(lambda x: x @ x, backend="aot_eager")
    assert torch.equal(square(torch.ones(2, 2)), 2 * torch.ones(2, 2))
assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
assert torch.is_deterministic_algorithms_warn_only_enabled()
"""


def test_who_turned_the_older_switches_finds_them_as_they_were():
    done = subprocess.run([sys.executable, "-c", OLDER_SWITCHES], capture_output=True, text=True)
    assert not done.returncode, done.stderr


class _Cublas:
    """Stands in for a GPU whose cuBLAS says `message` when it is asked for a product."""

    def __init__(self, message):
        self.message = message

    def mm(self, _):
        raise RuntimeError(self.message)


def test_a_workspace_that_was_chosen_before_is_refused_and_no_other_error_is_hidden(monkeypatch, refused):
    before = switches()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in (*CUBLAS, *ALLOCATOR_NAMES):
        monkeypatch.setenv(name, "as it was")
    monkeypatch.setattr(torch, "ones", lambda *_, **__: _Cublas("you must set CUBLAS_WORKSPACE_CONFIG=:4096:8"))
    with refused("CUBLAS_WORKSPACE_CONFIG=:4096:8", "before Python starts"), deterministic():
        pytest.fail("it was entered")
    monkeypatch.setattr(torch, "ones", lambda *_, **__: _Cublas("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"), deterministic():
        pytest.fail("it was entered")
    assert switches() == before


def test_the_workspace_is_ours_and_the_allocator_is_the_users_if_it_was_set(monkeypatch):
    for name in ALLOCATOR_NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    prepare_cuda()
    assert {name: os.environ[name] for name in (*CUBLAS, *ALLOCATOR)} == CUBLAS | ALLOCATOR
    for name in ALLOCATOR_NAMES:
        for other in ALLOCATOR_NAMES:
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, "max_split_size_mb:64")
        prepare_cuda()
        assert {other: os.environ.get(other) for other in ALLOCATOR_NAMES if other in os.environ} == {
            name: "max_split_size_mb:64"
        }


@pytest.mark.parametrize("bits", ["portable", "native"])
def test_a_stage_tells_cuda_before_torch_is_there(bits):
    script = (
        "import os, sys\nfrom leap_repro.pipeline import stages\n"
        "stages.import_module = lambda name: sys.exit(\n"
        "    'torch is loaded' if 'torch' in sys.modules else os.environ['CUBLAS_WORKSPACE_CONFIG'] + ' '\n"
        "    + os.environ['PYTORCH_ALLOC_CONF'])\n"
        "stages.run_stage('prune', sys.argv[1:])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in (*CUBLAS, *ALLOCATOR_NAMES)}
    command = [sys.executable, "-c", script, "--bits", bits]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stderr.strip() == ":4096:8 expandable_segments:True"
