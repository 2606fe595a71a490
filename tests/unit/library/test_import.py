"""`import leap_repro` costs nothing and changes nothing; its functions come when they are asked for."""

import json
import os
import subprocess
import sys

import pytest

import leap_repro
from leap_repro.portable import LIBRARIES

UNCHANGED = """
import gc, json, logging, os, sys, warnings
before = (dict(os.environ), list(warnings.filters), logging.getLogger().handlers[:], gc.get_threshold())
import leap_repro
dir(leap_repro)
loaded = [name for name in ("torch", "numpy", "transformers", "pyarrow", "pydantic") if name in sys.modules]
after = (dict(os.environ), list(warnings.filters), logging.getLogger().handlers[:], gc.get_threshold())
print(json.dumps([loaded, before == after]))
"""
COMPUTING = """
import json, os, sys, warnings
import torch
threads, environment, filters = torch.get_num_threads(), dict(os.environ), list(warnings.filters)
from leap_repro import evaluate_model, prune_model
flags = (torch.backends.mkldnn.enabled, torch.backends.cuda.flash_sdp_enabled(), torch.is_grad_enabled())
pruned = prune_model("llama3.2-1b-mini", method="magnitude")
evaluate_model(pruned, text=["One two three four five six seven eight nine ten. " * 9], lengths=[16])
assert flags == (torch.backends.mkldnn.enabled, torch.backends.cuda.flash_sdp_enabled(), torch.is_grad_enabled())
print(json.dumps([dict(os.environ) == environment, torch.get_num_threads() == threads]))
"""


def said(script):
    clean = {name: value for name, value in os.environ.items() if name not in LIBRARIES}
    done = subprocess.run([sys.executable, "-c", script], env=clean, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_import_loads_nothing_heavy_and_changes_nothing():
    assert said(UNCHANGED) == [[], True]


def test_pruning_and_scoring_leave_environment_threads_and_kernels_as_they_were():
    assert said(COMPUTING) == [True, True]


def test_every_name_is_there_and_no_other():
    for name in leap_repro.__all__:
        assert getattr(leap_repro, name).__name__ == name
    assert set(leap_repro.__all__) <= set(dir(leap_repro))
    with pytest.raises(AttributeError, match="prune_models"):
        _ = leap_repro.prune_models
