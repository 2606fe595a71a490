"""What a run and an export leave can be read by whom the umask allows: safetensors' and tempfile's own are 0600."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, sys
from importlib import import_module
from pathlib import Path

os.umask(int(sys.argv[1], 8))
top = Path(sys.argv[2])


def stage(name, *given, output):
    module = import_module(f"leap_repro.pipeline.stages.{name}")
    module.main(module.parser().parse_args([*map(str, given), "--output", str(top / output)]))


bundled = {"source": "bundled", "name": "llama3.2-1b-mini"}
stage("models", "--spec", json.dumps(bundled), output="model")
for role, split in (("calibration", "calibration"), ("mask_training", "mask_training")):
    stage("data", "--role", role, "--spec", json.dumps({"source": "bundled", "split": split}), output=role)
stage("data", "--role", "tasks", "--spec", json.dumps({"source": "bundled"}), output="tasks")
sizes = ("--sequences", 8, "--length", 32)
cut = ("--model", top / "model", "--text")
stage("calibration", *cut, top / "calibration", "--recipe", "windows", *sizes, output="tokens")
stage("calibration", *cut, top / "mask_training", "--recipe", "packed", *sizes, output="stream")
short = json.dumps({"steps": 1, "batch_size": 1, "micro_batch_size": 1})
given = ("--model", top / "model", "--sparsity", "0.5")
stage("prune", *given, "--tokens", top / "tokens", "--module", "sparsegpt", output="prune")
stage("prune", *given, "--tokens", top / "stream", "--module", "leap", "--options", short, output="logits")
for name in ("prune", "logits"):
    stage("harden", "--pruned", top / name, "--cell", "a/b/0.5/0", output=f"hard-{name}")
from leap_repro.store.hashes import _write
_write(top / "known.json", {})
command = import_module("leap_repro.export.__main__")
for form in ("dense", "packed"):
    given = ["--model", top / "model", "--cell", top / "hard-prune", "--format", form, "--output", top / form]
    command.main(command.parser().parse_args(list(map(str, given))))
import_module("leap_repro.export.write").unpack(top / "packed", top / "unpacked")
"""


@pytest.mark.parametrize(("umask", "file", "folder"), [("022", 0o644, 0o755), ("007", 0o660, 0o770)])
def test_every_file_and_folder_has_the_permissions_of_the_umask(tmp_path, umask, file, folder):
    top = tmp_path / "top"
    subprocess.run([sys.executable, "-c", SCRIPT, umask, str(top)], check=True, env=os.environ)
    paths = sorted(top.rglob("*"))
    assert sum(path.suffix == ".safetensors" for path in paths) > 10
    for path in paths:
        assert path.stat().st_mode & 0o777 == (folder if path.is_dir() else file), path.relative_to(top)
