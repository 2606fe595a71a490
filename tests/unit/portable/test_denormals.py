"""Denormal numbers count as zero inside the context, in every thread started there, and as themselves outside."""

import subprocess
import sys

import pytest
import torch

from leap_repro.portable.denormals import SMALLEST, denormals_flushed

THREADS = """
import torch
from leap_repro.portable.denormals import denormals_flushed
torch.set_num_threads(2)
with denormals_flushed():
    print(torch.full((1 << 20,), 1e-40).mul(0.9).count_nonzero().item())
"""


def halved():
    return torch.tensor([SMALLEST]).div(2).item()


def test_they_are_zero_inside_and_themselves_outside_even_after_an_error():
    assert halved() > 0
    with pytest.raises(KeyError), denormals_flushed():
        raise KeyError(halved())
    with denormals_flushed():
        assert halved() == 0
    assert halved() > 0


def test_an_inner_context_leaves_the_outer_as_it_was():
    with denormals_flushed():
        with denormals_flushed():
            pass
        assert halved() == 0
    assert halved() > 0


def test_threads_that_start_inside_flush_too():
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
