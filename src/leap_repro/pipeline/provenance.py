"""Where a result comes from: code fingerprint, versions of the libraries that made it, and the inputs it read.

A stage asks for it first thing, so that the fingerprint is that of the code which it has just imported and is about to
run, however long it then takes and whatever is edited meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from leap_repro.pipeline.fingerprint import fingerprint, module_digests
from leap_repro.store.artifacts import Artifact
from leap_repro.store.machine import machine, versions


def provenance(modules: tuple[str, ...], parameters: dict[str, Any], inputs: dict[str, Artifact]) -> dict[str, Any]:
    """What is written to `provenance.json`: fingerprint, `modules`, parameters, inputs, versions, machine."""
    return {
        "code": fingerprint(*modules),
        "modules": module_digests(*modules),
        "parameters": parameters,
        "inputs": {name: artifact.manifest_sha256 for name, artifact in sorted(inputs.items())},
        "versions": versions(),
        "machine": machine(),
    }


def scratch_folder(scratch: Path | None, origin: dict[str, Any]) -> Path | None:
    """A folder for this very job (code, versions, inputs and parameters), so that no other's leavings are resumed.

    A job that was stopped may go on on another machine.
    """
    if scratch is None:
        return None
    job = {key: value for key, value in origin.items() if key != "machine"}
    return scratch / hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:24]


def git_commit(folder: Path = Path(__file__).parent) -> str:
    """The commit of the checkout, with "+" if files differ from it, or "unknown" outside a checkout."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
