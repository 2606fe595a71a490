"""An exported cell is an ordinary checkpoint: the plain lm_eval command gives it the accuracies of our table."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

SPECS = {
    "model": {"source": "bundled", "name": "llama3.2-1b-mini"},
    "tasks": {"source": "bundled"},
    "perplexity": {"source": "bundled", "split": "test"},
}
TASKS = ["mmlu", "piqa", "arc_easy", "arc_challenge", "winogrande", "openbookqa"]


def stage(name, *arguments):
    command = [sys.executable, "-m", "leap_repro.pipeline", name, *map(str, arguments)]
    subprocess.run(command, check=True, timeout=300)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One magnitude cell, evaluated by us and exported."""
    folder = tmp_path_factory.mktemp("export")
    stage("models", "--spec", json.dumps(SPECS["model"]), "--output", folder / "model")
    for role in ("tasks", "perplexity"):
        stage("data", "--role", role, "--spec", json.dumps(SPECS[role]), "--output", folder / role)
    model = ("--model", folder / "model")
    stage("prune", *model, "--module", "magnitude", "--sparsity", "0.5", "--output", folder / "pruned")
    stage("harden", "--pruned", folder / "pruned", "--cell", "test", "--output", folder / "cell")
    cell = (*model, "--cell", folder / "cell", "--tasks", folder / "tasks")
    evaluate = ("--text", folder / "perplexity", "--lengths", "64", "--batch-size", "64")
    stage("evaluate", *cell, *evaluate, "--output", folder / "evaluated")
    export = ["leap_repro.export", *cell, "--task-yamls", folder / "yamls", "--output", folder / "checkpoint"]
    subprocess.run([sys.executable, "-m", *map(str, export)], check=True, timeout=300)
    return folder


def test_the_plain_command_gives_the_same_six_accuracies(exported):
    command = ["lm_eval", "--model", "hf", "--tasks", ",".join(TASKS), "--include_path", exported / "yamls"]
    command += ["--model_args", f"pretrained={exported / 'checkpoint'},dtype=float32", "--device", "cpu"]
    command += ["--batch_size", "64", "--output_path", exported / "theirs"]
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True, timeout=300, capture_output=True)
    (report,) = (exported / "theirs").rglob("results_*.json")
    theirs = json.loads(report.read_text())["results"]
    metrics = pd.read_parquet(exported / "evaluated/payload/metrics.parquet").set_index("task")["value"]
    assert {task: metrics[task] for task in TASKS} == {task: 100 * theirs[task]["acc,none"] for task in TASKS}


def test_the_checkpoint_holds_the_budgeted_zeros(exported):
    model = AutoModelForCausalLM.from_pretrained(exported / "checkpoint", dtype=torch.float32)
    for name, weight in model.named_parameters():
        if name.endswith("proj.weight"):
            assert int((weight == 0).sum()) >= weight.numel() // 2, name
