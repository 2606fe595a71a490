"""Where a cell comes from: the results beside it in the run that made it, each recognised by its digest.

A result is taken only if the provenance that leads to it names the sha256 of its manifest; one that was made anew
since, or of another cell, is left out, and so is all that a cell without a run lacks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leap_repro.errors import UserError
from leap_repro.models.identity import require_made_from
from leap_repro.store.artifacts import PROVENANCE, Artifact

TASK_SETS, PERPLEXITY_TEXT = "data/tasks", "data/perplexity"


@dataclass(frozen=True)
class Lineage:
    """The fetched model, the hardened cell, and what is known besides: the pruner's result, its tokens and their text,
    the evaluations of the cell and of the dense model, and the task sets and the text that these were made on; the
    command and the base's licence as they were given."""

    model: Artifact
    cell: Artifact
    pruned: Artifact | None = None
    tokens: Artifact | None = None
    text: Artifact | None = None
    evaluated: Artifact | None = None
    dense: Artifact | None = None
    questions: Artifact | None = None
    scored_text: Artifact | None = None
    command: str | None = None
    licence: str | None = None


def origin(artifact: Artifact | None) -> dict[str, Any]:
    """What `provenance.json` says of an artifact; empty where nothing is known."""
    is_known = artifact is not None and (artifact.folder / PROVENANCE).is_file()
    found = artifact.provenance() if artifact is not None and is_known else {}
    return {"parameters": {}, "inputs": {}, "versions": {}} | found


def lineage_of(model: Artifact, cell: Artifact, command: str | None = None, licence: str | None = None) -> Lineage:
    """The lineage of a cell that lies at <run>/harden/<model>/<method>/<sparsity>/<seed>; of another, itself alone.

    UserError if the cell was made from other weights than the model's.
    """
    require_made_from(cell, model)
    name, folder = cell.facts["cell"], cell.folder.absolute()
    if not folder.as_posix().endswith(f"/harden/{name}"):
        return Lineage(model, cell, command=command, licence=licence)
    root, (base, _, sparsity, seed) = folder.parents[4], name.split("/")
    # Under its own name, or under that of the line whose logits were hardened.
    pruned = _made_by(root.glob(f"prune/{base}/*/{sparsity}/{seed}"), origin(cell)["inputs"].get("pruned"))
    tokens = _made_by(root.glob(f"calibration/{base}/*/{seed}"), origin(pruned)["inputs"].get("tokens"))
    evaluated = _evaluation(root, name, model)
    dense = _evaluation(root, f"{base}/dense/0/{seed}", model)
    return Lineage(
        model,
        cell,
        pruned=pruned,
        tokens=tokens,
        text=_made_by(root.glob("data/*"), origin(tokens)["inputs"].get("text")),
        evaluated=evaluated,
        dense=dense if _alike(evaluated, dense) else None,
        questions=_read(root / TASK_SETS) if evaluated else None,
        scored_text=_read(root / PERPLEXITY_TEXT) if evaluated else None,
        command=command,
        licence=licence,
    )


def _read(folder: Path) -> Artifact | None:
    """The artifact in a folder whose manifest and provenance can be read."""
    try:
        found = Artifact.read(folder)
        found.provenance()
    except UserError:
        return None
    return found


def _made_by(folders: Iterable[Path], digest: str | None) -> Artifact | None:
    """The artifact among the folders whose manifest has this sha256."""
    found = (_read(folder) for folder in sorted(folders))
    return next((each for each in found if each and each.manifest_sha256 == digest), None)


def _evaluation(root: Path, cell: str, model: Artifact) -> Artifact | None:
    """The evaluation of a cell, if it is that of the model, the mask, the task sets and the text that lie there now."""
    found = _read(root / "evaluate" / cell)
    sources = {"cell": f"harden/{cell}", "tasks": TASK_SETS, "text": PERPLEXITY_TEXT}
    there = {name: _read(root / folder) for name, folder in sources.items()} | {"model": model}
    now = {name: source.manifest_sha256 for name, source in there.items() if source}
    return found if found and origin(found)["inputs"] == now else None


def _alike(one: Artifact | None, other: Artifact | None) -> bool:
    """Whether two evaluations asked the same questions, of the same model, in the same way."""
    parts = [
        (origin(each)["parameters"], {key: d for key, d in origin(each)["inputs"].items() if key != "cell"})
        for each in (one, other)
    ]
    return parts[0] == parts[1]
