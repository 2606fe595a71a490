"""Several processes train what one does, and SIGKILL loses nothing but time: the command line as it is used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from families import tiny
from few_bits import FEW_BITS
from safetensors.torch import load_file, save_file

from leap_repro.calibration.shards import ids_sha256
from leap_repro.prune.learned import held_out
from leap_repro.prune.learned.declaration import MOST_LOST
from leap_repro.store.artifacts import writing

STEPS = 20
OPTIONS = {"steps": STEPS, "batch_size": 8, "micro_batch_size": 2, "learning_rate": 1e-2}
SPARSITIES = {"leap": "0.6", "maskllm": "0.5", "patch": "0.4"}
CASES = {
    "leap": ("leap", "model", {}),
    "maskllm": ("maskllm", "model", {}),
    "patch": ("patch", "model", {"learn": "joint", "tile": 16}),
    "noise for each pass, clipped": ("leap", "model", {"noise": "forward", "gradient_clip": 1.0}),
    "recomputed": ("leap", "model", {"gradient_checkpointing": True}),
    "mixture of experts": ("leap", "mixture", {}),
    "looking at held-out text": ("leap", "model", {"held_out_evaluations": 3}),
    "in few bits": ("leap", "model", FEW_BITS),
    "gathered for a step": ("leap", "model", {"gathered": "step", "held_out_evaluations": 3}),
    "masked weights made for each use": ("leap", "model", {"masked_weights": "remade"}),
}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
ONE = [sys.executable]
TWO = [*ONE, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ALL_CASES = """
import json, sys
from leap_repro.portable.install import use_portable_kernels
from leap_repro.pipeline.stages.prune import parser, prune
from leap_repro.prune.learned import processes

use_portable_kernels("float32")
processes.join()
for arguments in json.loads(sys.argv[1]):
    prune(parser().parse_args(arguments))
processes.leave()
"""


def run_by_two(text, tmp_path, project):
    """Run a script by two processes, with the tests' tiny models at hand; what they said."""
    script = tmp_path / "script.py"
    script.write_text(text)
    paths = os.pathsep.join([str(project / "tests/support"), os.environ.get("PYTHONPATH", "")])
    environment = ENVIRONMENT | {"PYTHONPATH": paths}
    found = subprocess.run([*TWO, str(script)], env=environment, timeout=300, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stderr


@pytest.fixture(scope="module")
def sources(build_tiny, tmp_path_factory):
    """A folder with tiny models and sixteen sequences of tokens, as the stages before leave them."""
    folder = tmp_path_factory.mktemp("sources")
    for name, model in {"model": build_tiny("llama"), "mixture": tiny("mixtral")}.items():
        with writing(folder / name, {}) as (payload, _):
            model.save_pretrained(payload)
    tokens = torch.randint(0, 64, (16, 12), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    with writing(folder / "tokens", {}) as (payload, facts):
        save_file({"tokens": tokens}, payload / "tokens.safetensors")
        facts |= {"ids_sha256": ids_sha256(tokens), "recipe": "packed"}
    return folder


def arguments(sources, case, output, **options):
    method, model, own = CASES[case]
    given = {"--model": sources / model, "--tokens": sources / "tokens", "--module": method}
    given |= {"--sparsity": SPARSITIES[method], "--options": json.dumps(OPTIONS | own | options), "--output": output}
    given |= {"--held-out": sources / "tokens"} if "held_out_evaluations" in own else {}
    return [str(part) for pair in given.items() for part in pair]


def command(*given):
    return ["-m", "leap_repro.pipeline", "prune", *arguments(*given)]


@pytest.fixture(scope="module")
def trained(sources, tmp_path_factory):
    """A folder with every case as one process trained it and as two did."""
    folder = tmp_path_factory.mktemp("trained")
    script = folder / "all_cases.py"
    script.write_text(ALL_CASES)
    for name, start in {"one": ONE, "two": TWO}.items():
        cases = [arguments(sources, case, folder / name / case) for case in CASES]
        subprocess.run([*start, str(script), json.dumps(cases)], check=True, env=ENVIRONMENT, timeout=300)
    return folder


def logits(output):
    return load_file(output / "payload" / "pruned.safetensors")


def losses(output):
    return np.array([pq.read_table(output / "payload/log.parquet")[name] for name in ("loss_lm", "loss")])


def assert_close(case, ours, theirs):
    """But for rounding: losses to 1e-5, logits to 1e-4 on average, where a step is 1e-2. (Adam divides by the size of
    gradients, so that where one is nothing but rounding its sign makes whole steps.) Few bits are rounded by chance:
    losses to a tenth, logits to a step."""
    of_losses, of_logits = (1e-1, 1e-2) if case == "in few bits" else (1e-5, 1e-4)
    assert losses(ours).shape == (2, STEPS)
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=of_losses, atol=of_losses)
    ours, theirs = logits(ours), logits(theirs)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert (tensor.float() - theirs[name].float()).abs().mean() < of_logits, name


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_but_for_rounding(case, trained):
    assert_close(case, trained / "one" / case, trained / "two" / case)


@pytest.mark.parametrize("case", ["gathered for a step", "masked weights made for each use"])
def test_what_is_kept_changes_no_bit(case, trained):
    for processes in ("one", "two"):
        plain, ours = (logits(trained / processes / name) for name in ("leap", case))
        assert all(torch.equal(tensor, plain[name]) for name, tensor in ours.items())


def test_two_processes_see_on_held_out_text_what_one_does(trained):
    one, two = (
        pq.read_table(trained / name / "looking at held-out text/payload/log.parquet").to_pandas()[
            list(held_out.COLUMNS)
        ]
        for name in ("one", "two")
    )
    assert one["held_out_topk"].notna().sum() == 4
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)


def kill_after_checkpoint(training, scratch):
    """Start a training and kill it, with all its processes, when it has written its first checkpoint."""
    process = psutil.Popen(training, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    while not list(scratch.glob("*/state-*")):
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.01)
    for one in [process, *process.children(recursive=True)]:
        one.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("case", "first", "then"),
    [("in few bits", TWO, ONE), ("maskllm", ONE, TWO), ("looking at held-out text", TWO, ONE)],
)
def test_another_number_of_processes_goes_on_with_a_killed_training(case, first, then, trained, sources, tmp_path):
    training = [*command(sources, case, tmp_path / "output"), "--scratch", str(tmp_path / "scratch")]
    kill_after_checkpoint([*first, *training], tmp_path / "scratch")
    again = subprocess.run([*then, *training], check=True, env=ENVIRONMENT, capture_output=True, text=True)
    assert "resumed after step" in again.stderr
    assert_close(case, tmp_path / "output", trained / "one" / case)


SHARES = """
import torch
from torch.distributed.fsdp._fully_shard import _fsdp_param_group as groups
from leap_repro.prune.learned import processes
from families import tiny

processes.join()
from fractions import Fraction
from leap_repro.prune.job import Job
from leap_repro.prune.methods import leap

model, sent = tiny("llama"), []
scatter = groups.foreach_reduce
groups.foreach_reduce = lambda parameters, gradients, *rest, **more: (
    sent.append(sum(gradient.numel() for gradient in gradients) / 2),
    scatter(parameters, gradients, *rest, **more),
)[1]
tokens = torch.randint(0, 400, (8, 12), generator=torch.Generator().manual_seed(0))
options = leap.Options(steps=2, batch_size=8, micro_batch_size=1)
before = sum(p.numel() for p in model.parameters())
trainer = leap.trainer(Job(model, options, Fraction("0.5"), 0, tokens))
kept = sum(p.to_local().numel() for p in model.parameters())
prunable = int(trainer.numels.sum())
assert abs(kept - (before + prunable) / 2) < 0.01 * before, (kept, before, prunable)
names = [str(index) for index in range(len(trainer.layers))]
assert sum(moment.numel() for moment in trainer.optimizer.state(names).values()) == prunable  # two halves
trainer.step(0)
assert len(sent) == 2 and sum(sent) == prunable / 2, sent  # a block's gradients travel once, after four micro-batches
processes.leave()
"""


def test_a_process_holds_its_share_and_sends_gradients_once_a_step(tmp_path, project):
    run_by_two(SHARES, tmp_path, project)


GATHERS = """
import torch
from torch.distributed.fsdp._fully_shard import _fsdp_param_group as groups
from leap_repro.prune.learned import processes
from families import tiny

processes.join()
from fractions import Fraction
from leap_repro.prune.job import Job
from leap_repro.prune.methods import leap

gathers, usual = [], groups.foreach_all_gather
groups.foreach_all_gather = lambda *given, **more: (gathers.append(1), usual(*given, **more))[1]
tokens, found = torch.randint(0, 400, (8, 12), generator=torch.Generator().manual_seed(0)), {}
for gathered in ("pass", "step"):
    options = leap.Options(steps=2, batch_size=8, micro_batch_size=1, gathered=gathered)
    trainer = leap.trainer(Job(tiny("llama"), options, Fraction("0.5"), 0, tokens))
    gathers.clear()
    trainer.step(0)
    found[gathered] = len(gathers)
    sharded = [layer.gate.logits["logits"] for layer in trainer.layers]
    assert all(hasattr(logits, "to_local") for logits in sharded), "they are still gathered after the step"
assert found["step"] == 3 < found["pass"], found  # two blocks, and what lies outside of them
processes.leave()
"""


def test_blocks_that_stay_gathered_are_gathered_once_a_step(tmp_path, project):
    run_by_two(GATHERS, tmp_path, project)


MIXED = """
import os, torch
from leap_repro.errors import UserError
from leap_repro.prune.learned import processes
from families import tiny

processes._device = lambda: "GPU " + os.environ["RANK"]
processes.join()
from fractions import Fraction
from leap_repro.prune.job import Job
from leap_repro.prune.methods import leap

def trainer(source):
    options = leap.Options(steps=1, batch_size=2, micro_batch_size=1, noise_source=source)
    return leap.trainer(Job(tiny("llama"), options, Fraction("0.5"), 0, torch.zeros(4, 8, dtype=torch.int64)))

try:
    trainer("auto")
except UserError as error:
    assert "noise_source is 'generator': its numbers differ between GPU 0 and GPU 1" in str(error), error
else:
    raise AssertionError("it was not refused")
facts = trainer("counter").train({}).facts
assert facts == {"noise_source": "counter", "devices": ["GPU 0", "GPU 1"]}, facts
processes.leave()
"""


def test_processes_on_several_kinds_of_devices_are_told_and_count_their_noise(tmp_path, project):
    said = run_by_two(MIXED, tmp_path, project)
    assert said.count("the processes run on GPU 0 and GPU 1: these kinds round differently") == 1


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
    launcher = [*TWO[:-1], "1"]
    subprocess.run([*launcher, str(script)], check=True, env=ENVIRONMENT, timeout=300)


@pytest.mark.parametrize("case", SPARSITIES)
def test_a_training_killed_by_sigkill_ends_with_the_same_bits(case, trained, sources, tmp_path):
    training = [*ONE, *command(sources, case, tmp_path / "output"), "--scratch", str(tmp_path / "scratch")]
    kill_after_checkpoint(training, tmp_path / "scratch")
    assert not (tmp_path / "output" / "manifest.json").exists()
    saved = sorted(int(path.name.removeprefix("state-")) for path in (tmp_path / "scratch").glob("*/state-*"))
    assert saved[-1] - saved[0] <= MOST_LOST * STEPS
    again = subprocess.run(training, check=True, env=ENVIRONMENT, capture_output=True, text=True)
    assert f"resumed after step {saved[-1]} of {STEPS}" in again.stderr
    ours, theirs = logits(tmp_path / "output"), logits(trained / "one" / case)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert ours.keys() == theirs.keys()
    assert not list((tmp_path / "scratch").glob("*/state-*"))


def test_processes_that_cannot_share_the_batch_are_refused(sources, tmp_path):
    training = [*TWO, *command(sources, "leap", tmp_path / "output")]
    training[training.index("--options") + 1] = json.dumps(OPTIONS | {"batch_size": 2})
    found = subprocess.run(training, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert found.returncode != 0
    assert "1 micro-batches per step cannot be shared by 2 processes" in found.stderr


APART = """
import os, sys, torch
from pathlib import Path
from leap_repro.errors import UserError
from leap_repro.prune.learned import checkpoint, processes

checkpoint.SHOWN_SECONDS = 0.1
processes.join()
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
tensor = distribute_tensor(torch.ones(4, 2), init_device_mesh("cpu", (2,)), [Shard(0)])
try:
    checkpoint.save(Path(sys.argv[1]) / str(processes.rank()), 1, {"0.logits": tensor})
except UserError as error:
    assert "a disk that all of them share" in str(error), error
else:
    raise AssertionError("it was not refused")
processes.leave()
"""


def test_disks_that_are_not_shared_are_noticed_at_the_first_checkpoint(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(APART)
    subprocess.run([*TWO, str(script), str(tmp_path)], check=True, env=ENVIRONMENT, timeout=300)
    assert not list(tmp_path.glob("*/state-*"))
