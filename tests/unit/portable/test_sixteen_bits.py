"""In 16 bits nothing is promised to the bit, but it runs on every processor: attention as large as torch packs it."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from leap_repro.portable import pin
pin()
from leap_repro.portable.install import use_portable_kernels
import torch
dtype = sys.argv[1]
use_portable_kernels(dtype)
generator = torch.Generator().manual_seed(0)
q, k, v = (torch.randn(1, 4, 600, 64, generator=generator) for _ in range(3))
attend = torch.nn.functional.scaled_dot_product_attention
exact = attend(q.double(), k.double(), v.double(), is_causal=True)
found = attend(*(x.to(getattr(torch, dtype)) for x in (q, k, v)), is_causal=True)
assert float((found.double() - exact).abs().max()) < 0.05
"""


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_attention_in_sixteen_bits_runs_pinned_to_avx2_whatever_the_processor_could_do(dtype):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, dtype], env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
