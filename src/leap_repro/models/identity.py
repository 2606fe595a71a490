"""Which model a cell was made from: not only one of the same shapes, as another fine-tune is."""

from __future__ import annotations

import hashlib
import json

from leap_repro.errors import UserError
from leap_repro.store.artifacts import SUFFIX, Artifact

WEIGHTS = "weights_sha256"
"""What a pruned cell's manifest calls it."""


def weights_sha256(model: Artifact) -> str:
    """The sha256 over the names and sha256s of a fetched model's weight files."""
    files = {name: entry["sha256"] for name, entry in model.files.items() if name.endswith(SUFFIX)}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def require_made_from(cell: Artifact, model: Artifact) -> None:
    """UserError, naming both, unless the cell was made from the weights of this fetched model."""
    found, own = cell.facts.get(WEIGHTS), weights_sha256(model)
    if found != own:
        made = f"of sha256 {found}" if found else "that its manifest does not name"
        base = f"{model.folder}, whose weights have {own}"
        name = cell.facts.get("cell", cell.folder)
        raise UserError(f"cell {name} was made from weights {made}, not from {base}")
