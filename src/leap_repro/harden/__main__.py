"""`python -m leap_repro.harden`: turn a pruner's output into bit-packed masks, checked against the integer budget."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.harden.tensors import RULES, harden
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.masks import MASK_FILE, VALUES_STEM, block_of, check_budget, check_pattern, pack
from leap_repro.store.provenance import provenance
from leap_repro.store.tensor_files import TensorFolder, tensors_of

KINDS = ("keep", "values", "logits", "patterns", "tiles")


def split_by_kind(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """{kind: {tensor name: tensor}} from the suffixes that the pruners write."""
    kinds: dict[str, dict[str, torch.Tensor]] = {kind: {} for kind in KINDS}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition(".")
        kinds[kind][name] = tensor
    return {kind: dict(sorted(found.items(), key=lambda item: _natural(item[0]))) for kind, found in kinds.items()}


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts block 10 after block 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def tensor_row(name: str, mask: torch.Tensor) -> dict[str, Any]:
    """The manifest's integer counts of one tensor."""
    return {
        "tensor": name,
        "block": int(re.search(r"\.(\d+)\.", name).group(1)),
        "shape": list(mask.shape),
        "kept": int(mask.count_nonzero()),
        "numel": mask.numel(),
    }


def write_kept_values(
    folder: TensorFolder,
    values: Mapping[str, torch.Tensor],
    rows: list[dict[str, Any]],
    masks: Mapping[str, torch.Tensor],
) -> None:
    """One file per block with the moved weights that stay, in the masks' order; none if the method moves none."""
    for block in sorted({row["block"] for row in rows}):
        names = [row["tensor"] for row in rows if row["block"] == block and row["tensor"] in values]
        if names:
            folder.write(f"{VALUES_STEM}{block:05d}", {name: values[name][masks[name]] for name in names})


def main(arguments: argparse.Namespace) -> None:
    """Harden, check, pack, write."""
    pruned = Artifact.read(arguments.pruned)
    origin = provenance(("leap_repro.harden.__main__",), {"rule": arguments.rule}, {"pruned": pruned})
    kinds = split_by_kind(tensors_of(pruned))
    sparsity = parse_sparsity(pruned.facts["sparsity"])
    hardened = harden(kinds, pruned.facts["pattern"], pruned.facts["budget_scope"], sparsity, arguments.rule)
    if not hardened.masks:
        raise UserError(f"{arguments.pruned} holds neither masks nor logits")
    rows, packed = [], {}
    for name, mask in hardened.masks.items():
        rows.append(tensor_row(name, mask))
        packed[name] = pack(mask)
    counts = {row["tensor"]: (row["kept"], row["numel"]) for row in rows}
    check_budget(arguments.cell, counts, sparsity, hardened.scope, hardened.neighbours)
    check_pattern(arguments.cell, hardened.masks, pruned.facts["pattern"])
    with writing(arguments.output, origin) as (payload, facts):
        save_file(packed, payload / MASK_FILE)
        write_kept_values(TensorFolder(payload), kinds["values"], rows, hardened.masks)
        facts |= {
            "cell": arguments.cell,
            "sparsity": pruned.facts["sparsity"],
            "seed": pruned.facts["seed"],
            "tokens_sha256": pruned.facts["tokens_sha256"],
            "pattern": pruned.facts["pattern"],
            "budget_scope": hardened.scope,
            "neighbours": hardened.neighbours,
            "rule": hardened.rule,
            "kept": sum(row["kept"] for row in rows),
            "prunable": sum(row["numel"] for row in rows),
            "blocks": {str(block): list(counts) for block, counts in block_of(rows).items()},
            "tensors": rows,
        }


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.harden", description=__doc__)
    parser.add_argument("--pruned", required=True, type=Path, help="folder that the prune stage wrote")
    parser.add_argument("--rule", default="exact", choices=RULES, help="how logits become a mask")
    parser.add_argument("--cell", required=True, help="the cell's name, for messages")
    parser.add_argument("--output", required=True, type=Path)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
