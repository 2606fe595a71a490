"""A bundled miniature, its text and tokens, and task sets, as the first stages of the pipeline leave them."""

import json
from importlib import import_module

import pytest

from leap_repro.store.artifacts import Artifact

NAME = "llama3.2-1b-mini"


@pytest.fixture(scope="session")
def stage():
    """`stage("prune", "--model", folder, ...)`: run it in this process, as its command line would; its artifact."""

    def run(name, *arguments, output):
        module = import_module(f"leap_repro.pipeline.stages.{name}")
        module.main(module.parser().parse_args([*map(str, arguments), "--output", str(output)]))
        return Artifact.read(output)

    return run


@pytest.fixture(scope="session")
def sources(stage, tmp_path_factory):
    """A folder with the model, its calibration sample and training stream, the perplexity text and the task sets."""
    top = tmp_path_factory.mktemp("sources")
    stage("models", "--spec", json.dumps({"source": "bundled", "name": NAME}), output=top / "model")
    for role, split in (("calibration", "calibration"), ("mask_training", "mask_training"), ("perplexity", "test")):
        spec = json.dumps({"source": "bundled", "split": split})
        stage("data", "--role", role, "--spec", spec, output=top / role)
    stage("data", "--role", "tasks", "--spec", json.dumps({"source": "bundled"}), output=top / "tasks")
    shards = (("tokens", "calibration", "windows", 16), ("stream", "mask_training", "packed", 64))
    for name, text, recipe, count in shards:
        given = ("--model", top / "model", "--text", top / text, "--recipe", recipe)
        stage("calibration", *given, "--sequences", count, "--length", 64, output=top / name)
    return top
