"""A whole cell hardened: a pruner's artifact in, packed masks out, their integer counts checked against the budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.harden.tensors import AS_PRUNED, Hardened, harden
from leap_repro.models.identity import WEIGHTS
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.sparsity.masks import MASK_FILE, block_of, check_budget, check_pattern, pack
from leap_repro.sparsity.pruned import cell_files, read_pruned, tensor_row
from leap_repro.store.artifacts import Artifact
from leap_repro.store.atomic import place
from leap_repro.store.tensor_files import save_tensors


@dataclass(frozen=True)
class HardenedCell:
    """What the manifest of a hardened cell says (`facts`), and its masks: packed ones, or the pruner's own files."""

    pruned: Artifact
    facts: dict[str, Any]
    packed: dict[str, Tensor] = field(default_factory=dict)

    def write(self, payload: Path) -> None:
        """Put the masks, and the values that stay, into the folder; masks of the pruner's own keep their bytes."""
        if self.packed:
            save_tensors(self.packed, payload / MASK_FILE)
        for name in cell_files(self.pruned) if not self.packed else ():
            place(self.pruned.file(name), payload / name)


def harden_cell(pruned: Artifact, cell: str, rule: str = "exact") -> HardenedCell:
    """Make and check the masks of what a pruner left; `cell` is its name, for messages.

    UserError if it left neither masks nor logits, for an unknown rule, or if the masks miss their budget or pattern.
    """
    sparsity = parse_sparsity(pruned.facts["sparsity"])
    pattern = pruned.facts["pattern"]
    hardened = harden(read_pruned(pruned), pattern, pruned.facts["budget_scope"], sparsity, rule)
    if not hardened.masks:
        raise UserError(f"{pruned.folder} holds neither masks nor logits")
    neighbours = hardened.neighbours or pruned.facts.get("neighbours", [])
    rows, packed = [], {}
    for name, mask in hardened.masks.items():
        rows.append(tensor_row(name, mask))
        if hardened.rule != AS_PRUNED:
            packed[name] = pack(mask)
    counts = {row["tensor"]: (row["kept"], row["numel"]) for row in rows}
    check_budget(cell, counts, sparsity, hardened.scope, neighbours)
    check_pattern(cell, hardened.masks, pattern)
    return HardenedCell(pruned, _facts(pruned, cell, hardened, neighbours, rows), packed)


def _facts(
    pruned: Artifact, cell: str, hardened: Hardened, neighbours: list[int], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """The manifest of the cell, with a row of counts for each tensor."""
    facts = {
        "cell": cell,
        "sparsity": pruned.facts["sparsity"],
        "seed": pruned.facts["seed"],
        "tokens_sha256": pruned.facts["tokens_sha256"],
        "pattern": pruned.facts["pattern"],
        "budget_scope": hardened.scope,
        "neighbours": neighbours,
        "rule": hardened.rule,
        "kept": sum(row["kept"] for row in rows),
        "prunable": sum(row["numel"] for row in rows),
        "blocks": {str(block): list(counts) for block, counts in block_of(rows).items()},
        "tensors": rows,
    }
    return facts | {name: pruned.facts[name] for name in ("recovery", WEIGHTS) if name in pruned.facts}
