"""One flipped byte anywhere: the next stage that reads the file refuses and names it, through its own command line."""

import random
import shutil
from pathlib import Path

import pytest
import yaml
from scratch import REPOSITORY, run_here

from leap_repro.pipeline.asked import asked_of
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.jobs import as_json
from leap_repro.pipeline.stages import STAGES
from leap_repro.store.artifacts import MANIFEST

MODEL, TASKS = "models/mini", "data/tasks"
TEXT, CALIBRATION_TEXT = "data/perplexity", "data/calibration"
TOKENS = "calibration/mini/calibration/0"
WANDA, ADMM, LEAP = "mini/wanda/0.5/0", "mini/admm/0.5/0", "mini/leap/0.5/0"
METHODS = '{"wanda": {"label": "Wanda", "variant_of": null}}'

CALIBRATE = ["calibration", "--model", MODEL, "--text", CALIBRATION_TEXT, "--recipe", "windows"]
CALIBRATE += ["--sequences", "4", "--length", "32"]
PRUNE = ["prune", "--model", MODEL, "--sparsity", "0.5", "--module"]
EVALUATE = ["evaluate", "--model", MODEL, "--tasks", TASKS, "--text", TEXT, "--lengths", "32", "--cell"]
TABLES = ["--root", ".", "--models", "mini", "--methods", METHODS]

# the damaged file (a pattern under the results) and the command that reads it next
DAMAGED = [
    (f"{MODEL}/payload/tokenizer.json", CALIBRATE),
    (f"{MODEL}/payload/config.json", CALIBRATE),
    (f"{CALIBRATION_TEXT}/payload/*.parquet", CALIBRATE),
    (f"{MODEL}/payload/model.safetensors", [*PRUNE, "wanda", "--tokens", TOKENS]),
    (f"{TOKENS}/payload/*.safetensors", [*PRUNE, "wanda", "--tokens", TOKENS]),
    (
        f"harden/{WANDA}/payload/mask.safetensors",
        [*PRUNE, "leap", "--tokens", "calibration/mini/mask_training/0", "--warm-start", f"harden/{WANDA}"],
    ),
    (
        "calibration/mini/mask_training/0/payload/*.safetensors",
        [*PRUNE, "leap", "--tokens", "calibration/mini/mask_training/0", "--warm-start", f"harden/{WANDA}"],
    ),
    (f"prune/{WANDA}/payload/*.safetensors", ["harden", "--pruned", f"prune/{WANDA}", "--cell", WANDA]),
    (f"prune/{LEAP}/payload/*.safetensors", ["harden", "--pruned", f"prune/{LEAP}", "--cell", LEAP]),
    (f"{MODEL}/payload/model.safetensors", [*EVALUATE, f"harden/{WANDA}"]),
    (f"{MODEL}/payload/tokenizer.json", [*EVALUATE, f"harden/{WANDA}"]),
    (f"harden/{WANDA}/payload/mask.safetensors", [*EVALUATE, f"harden/{WANDA}"]),
    (f"harden/{ADMM}/payload/values-*.safetensors", [*EVALUATE, f"harden/{ADMM}"]),
    (f"{TEXT}/payload/*.parquet", [*EVALUATE, f"harden/{WANDA}"]),
    (f"{TASKS}/payload/piqa/validation.parquet", [*EVALUATE, f"harden/{WANDA}"]),
    (f"evaluate/{WANDA}/payload/metrics.parquet", ["collect"]),
    (f"evaluate/{WANDA}/payload/outcomes.parquet", ["collect"]),
    (
        "aggregate/mini/payload/results.parquet",
        ["report.join", "--root", ".", "--models", "mini", "--answers", "answers.parquet"],
    ),
    ("aggregate/mini/payload/results.parquet", ["report.tables", "main", *TABLES]),
    ("aggregate/mini/payload/outcomes.parquet", ["report.tables", "model", *TABLES]),
    ("aggregate/mini/payload/density.parquet", ["report.figures.density", *TABLES]),
    ("aggregate/mini/payload/results.parquet", ["report.figures.accuracy", *TABLES]),
    (
        f"harden/{WANDA}/payload/mask.safetensors",
        ["export", "--model", MODEL, "--cell", f"harden/{WANDA}"],
    ),
]


@pytest.fixture(scope="module")
def copy(finished, tmp_path_factory):
    return shutil.copytree(finished / "results/tiny", tmp_path_factory.mktemp("damage") / "tiny")


@pytest.fixture
def results(copy, monkeypatch):
    """The results of the tiny grid as the working directory."""
    monkeypatch.chdir(copy)
    return copy


def flip(path, rng):
    """Flip one bit of one byte, and give back what makes it good again."""
    whole = path.read_bytes()
    bad = bytearray(whole)
    bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    path.write_bytes(bad)
    return lambda: path.write_bytes(whole)


def collect():
    """The command that collects one cell, as the rule of the tiny grid has it."""
    study = read_study(yaml.safe_load((REPOSITORY / "tests/config/tiny.yaml").read_text()))
    asked = as_json(asked_of(study, "mini"))
    return ["report.collect", "--root", ".", "--model", "mini", "--cells", WANDA, "--asked", asked]


@pytest.mark.parametrize(
    ("pattern", "command"),
    DAMAGED,
    ids=[f"{pattern}-{command[0]}-{index}" for index, (pattern, command) in enumerate(DAMAGED)],
)
def test_a_flipped_byte_is_noticed_by_the_next_reader(
    finished, results, tmp_path, monkeypatch, capsys, pattern, command
):
    path = sorted(results.glob(pattern))[0]
    repair = flip(path, random.Random(f"{pattern} {command}"))
    room, *arguments = collect() if command == ["collect"] else command
    module = ["pipeline", room] if room in STAGES else [room]
    module[0] = f"leap_repro.{module[0]}"
    try:
        status, sentence = run_here([*module, *arguments, "--output", str(tmp_path / "out")], monkeypatch, capsys)
    finally:
        repair()
    assert status == 2
    assert sentence.startswith(f"error: {path.relative_to(results)} is missing or differs from its manifest's sha256")
    assert not list(Path(tmp_path).rglob(MANIFEST))
