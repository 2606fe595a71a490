"""The command line as it is used: two processes train the bits of one, and SIGKILL loses nothing but time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from leap_repro.calibration.shards import ids_sha256
from leap_repro.prune.learned.declaration import MOST_LOST
from leap_repro.store.artifacts import writing

OPTIONS = {"steps": 30, "batch_size": 8, "micro_batch_size": 2, "learning_rate": 1e-2}
METHODS = {"leap": ("0.6", {}), "maskllm": ("0.5", {}), "patch": ("0.4", {"learn": "joint", "tile": 16})}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def sources(build_tiny, tmp_path_factory):
    """A folder with a tiny model and sixteen sequences of tokens, as the stages before leave them."""
    folder = tmp_path_factory.mktemp("sources")
    with writing(folder / "model", {}) as (payload, _):
        build_tiny("llama").save_pretrained(payload)
    tokens = torch.randint(0, 64, (16, 12), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    with writing(folder / "tokens", {}) as (payload, facts):
        save_file({"tokens": tokens}, payload / "tokens.safetensors")
        facts |= {"ids_sha256": ids_sha256(tokens), "recipe": "packed"}
    return folder


def arguments(sources, method, output, **options):
    sparsity, own = METHODS[method]
    given = {"--model": sources / "model", "--tokens": sources / "tokens", "--module": method, "--sparsity": sparsity}
    given |= {"--options": json.dumps(OPTIONS | own | options), "--output": output}
    return ["-m", "leap_repro.prune", *(str(part) for pair in given.items() for part in pair)]


def logits(output):
    return load_file(output / "payload" / "pruned.safetensors")


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.fixture(scope="module", params=METHODS)
def trained(request, sources, tmp_path_factory):
    """(method, the logits of an undisturbed run in one process)."""
    output = tmp_path_factory.mktemp(request.param) / "one"
    subprocess.run([sys.executable, *arguments(sources, request.param, output)], check=True, env=ENVIRONMENT)
    return request.param, logits(output)


def test_two_processes_train_the_bits_of_one(trained, sources, tmp_path):
    method, expected = trained
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, *arguments(sources, method, tmp_path / "two")]
    subprocess.run(command, check=True, env=ENVIRONMENT, timeout=300)
    assert_same(logits(tmp_path / "two"), expected)


def test_two_processes_round_by_chance_as_one(sources, tmp_path):
    """Sums of gradients, logits and moments alike."""
    few = {"logits_dtype": "bfloat16", "logits_rounding": "stochastic", "state_dtype": "int8"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, start in {"one": [sys.executable], "two": launcher}.items():
        command = [*start, *arguments(sources, "leap", tmp_path / name, gradients_dtype="bfloat16", steps=3, **few)]
        subprocess.run(command, check=True, env=ENVIRONMENT, timeout=300)
    assert_same(logits(tmp_path / "one"), logits(tmp_path / "two"))


def test_two_processes_with_noise_for_each_pass_train_as_one_but_for_rounding(sources, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, start in {"one": [sys.executable], "two": launcher}.items():
        command = [*start, *arguments(sources, "leap", tmp_path / name, noise="forward", steps=3)]
        subprocess.run(command, check=True, env=ENVIRONMENT, timeout=300)
    ours, theirs = logits(tmp_path / "one"), logits(tmp_path / "two")
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-5)


LEAVES_NOTHING = """
from pathlib import Path
from leap_repro.prune.learned import processes

def threads():
    return [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm") if "gloo" in name.read_text()]

processes.join()
import torch.distributed.nn, transformers.modeling_utils
assert threads() and processes.count() == 1
processes.leave()
assert not threads(), threads()
"""


def test_no_thread_outlives_the_group(tmp_path):
    """One that met the end of Python would abort a process whose work is done, and torchrun would kill the others."""
    script = tmp_path / "script.py"
    script.write_text(LEAVES_NOTHING)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    subprocess.run([*launcher, str(script)], check=True, env=ENVIRONMENT, timeout=300)


def test_a_training_killed_by_sigkill_ends_with_the_same_bits(trained, sources, tmp_path):
    method, expected = trained
    command = [sys.executable, *arguments(sources, method, tmp_path / "output"), "--scratch", str(tmp_path / "scratch")]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "scratch").glob("*/state-*")):
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "output" / "manifest.json").exists()
    saved = sorted(int(path.stem.removeprefix("state-")) for path in (tmp_path / "scratch").glob("*/state-*"))
    assert saved[-1] - saved[0] <= MOST_LOST * OPTIONS["steps"]
    again = subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True, text=True)
    assert f"resumed after step {saved[-1]} of {OPTIONS['steps']}" in again.stderr
    assert_same(logits(tmp_path / "output"), expected)
    assert not list((tmp_path / "scratch").glob("*/state-*"))


def test_processes_that_cannot_share_the_batch_are_refused(sources, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, *arguments(sources, "leap", tmp_path / "output", batch_size=2)]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert found.returncode != 0
    assert "1 micro-batches per step cannot be shared by 2 processes" in found.stderr
