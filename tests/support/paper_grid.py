"""Run `scale=paper` through a hub on loopback: the config as it is, under an overlay of tiny numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from loopback_hub import Hub
from scratch import checkout_of, snakemake
from stand_ins import REPOSITORY, TOKEN, expectations

from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config

LEARNED = {"steps": 3, "batch_size": 2, "micro_batch_size": 2, "checkpoint_every": 2}
NUMBERS = {
    "calibration": {"sequences": 4, "length": 64},
    "mask_training": {"sequences": 8, "length": 64},
    "evaluation": {"perplexity_lengths": [64, 128], "batch_size": 32},
    "threads": 1,
}


def learned_methods() -> list[str]:
    """The config's methods that are trained, by their options."""
    methods = read_study(read_config(project=REPOSITORY)).methods
    return [name for name, line in methods.items() if line.module in ("leap", "maskllm") and not line.hardens]


def write_checkout(folder: Path, scale: str = "paper", **changes: Any) -> Path:
    """A scratch checkout with the project's config and the overlay `tiny.yaml`; `changes`: more keys of the scale."""
    checkout_of(folder)
    overlay = NUMBERS | expectations(scale) | {"options": dict.fromkeys(learned_methods(), LEARNED)} | changes
    # The stand-ins are tiny and run on any CPU; the config's own sizes would be refused there.
    config = {"scale": scale, "preflight": "warn", "scales": {scale: overlay}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def client_variables(hub: Hub, cache: Path) -> dict[str, str]:
    """Where the client finds the hub, its own cache, and the token of an account that accepted all terms."""
    return {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "HF_TOKEN": TOKEN}


def pin(folder: Path, variables: dict[str, str], *names: str) -> subprocess.CompletedProcess:
    """`leap-repro pin` in a checkout."""
    command = [sys.executable, "-m", "leap_repro.pipeline.pin", *names]
    variables = os.environ | variables | {"PYTHONPATH": str(folder / "src")}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False)


def run(folder: Path, variables: dict[str, str], *arguments: str, timeout: int = 900) -> str:
    """Snakemake with the overlay in a checkout; its output."""
    return snakemake(folder, *arguments, "--configfile", "tiny.yaml", variables=variables, timeout=timeout)
