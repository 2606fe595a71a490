"""Pins are set before the libraries are loaded, and the libraries are asked what they took."""

import os
import subprocess
import sys

import pytest

from leap_repro.portable import LIBRARIES, pin, unpin
from leap_repro.portable.install import check, portable_kernels, use_portable_kernels

CHECK = "from leap_repro.portable.install import check\ncheck()"
CLEAN = {name: value for name, value in os.environ.items() if name not in LIBRARIES}


def run(script, **environment):
    done = subprocess.run([sys.executable, "-c", script], env=CLEAN | environment, capture_output=True, text=True)
    return done.stdout.strip(), done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_pin_stands_whatever_stood_there(name):
    script = f"from leap_repro.portable import pin\npin()\nimport os\nprint(os.environ[{name!r}])"
    assert run(script, **{name: "other"})[0] == LIBRARIES[name]


def test_a_pinned_process_passes():
    assert run(f"from leap_repro.portable import pin\npin()\n{CHECK}") == ("", "")


LATE = {
    "torch": (
        "import torch; torch.ones(3).exp()",
        {"ATEN_CPU_CAPABILITY": "default"},
        "torch's kernels to be for DEFAULT",
    ),
    "openblas": ("import numpy", {"OPENBLAS_CORETYPE": "Nehalem"}, "Nehalem"),
}


@pytest.mark.parametrize("library", LATE)
def test_a_pin_that_comes_too_late_is_refused_in_one_sentence(library):
    """torch asks at its first computation, OpenBLAS when it is loaded: the environment alone says nothing."""
    before, environment, words = LATE[library]
    said = run(f"{before}\nfrom leap_repro.portable import pin\npin()\n{CHECK}", **environment)[1]
    assert said.startswith("leap_repro.errors.UserError: portable bits are not available")
    assert words in said
    assert "native" in said


def test_a_pin_after_an_import_without_a_computation_is_in_time():
    script = f"import torch\nfrom leap_repro.portable import pin\npin()\n{CHECK}"
    assert run(script, ATEN_CPU_CAPABILITY="default", OPENBLAS_CORETYPE="Haswell") == ("", "")


def test_a_stage_pins_itself_and_native_ones_are_not(tmp_path):
    script = (
        "import sys\nfrom leap_repro.pipeline import stages\n"
        "stages.cli.run_stage = lambda *given: None\n"
        "stages.run_stage('evaluate', sys.argv[1:])\n"
        "import torch\nprint(torch.backends.cpu.get_cpu_capability())"
    )
    done = {}
    for bits in ("portable", "native"):
        # DEFAULT is what this process is told: a native stage leaves it alone, a pinned one does not ask.
        environment = CLEAN | {"ATEN_CPU_CAPABILITY": "default"}
        command = [sys.executable, "-c", script, "--bits", bits]
        done[bits] = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert done == {"portable": "AVX2", "native": "DEFAULT"}


def test_taking_the_pins_out_leaves_what_others_set(monkeypatch):
    for name, value in (LIBRARIES | {"MKL_CBWR": "COMPATIBLE"}).items():
        monkeypatch.setenv(name, value)
    unpin()
    assert {name: os.environ[name] for name in LIBRARIES if name in os.environ} == {"MKL_CBWR": "COMPATIBLE"}


def test_kernels_for_a_while_are_gone_afterwards():
    script = """
from leap_repro.portable import pin
pin()
from leap_repro.portable.install import portable_kernels
import torch
from torch.backends import cuda, mkldnn
x = torch.linspace(-5, 5, 10_000)
def seen():
    return x.exp().numpy().tobytes(), mkldnn.enabled, cuda.flash_sdp_enabled()
before = seen()
with portable_kernels():
    inside = seen()
with portable_kernels():
    assert seen() == inside
print(before == seen(), inside[0] == before[0], inside[1:])
"""
    assert run(script)[0] == "True False (False, False)"


def test_in_a_process_that_computes_so_anyway_they_stay():
    use_portable_kernels("float32")
    import torch

    x = torch.linspace(-5, 5, 10_000)
    before = x.exp()
    with portable_kernels():
        assert torch.equal(x.exp(), before)
    assert torch.equal(x.exp(), before)
    assert not torch.backends.mkldnn.enabled


def test_the_tests_themselves_are_pinned():
    pin()
    check()
