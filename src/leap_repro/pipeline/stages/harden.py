"""`python -m leap_repro.pipeline harden`: from a pruner's output to bit-packed masks, checked against the budget."""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import save_file

from leap_repro.errors import UserError
from leap_repro.harden.tensors import AS_PRUNED, RULES, harden
from leap_repro.pipeline.provenance import provenance
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.sparsity.masks import MASK_FILE, block_of, check_budget, check_pattern, pack
from leap_repro.sparsity.pruned import cell_files, read_pruned, tensor_row
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.atomic import place


def main(arguments: argparse.Namespace) -> None:
    """Harden, check, pack, write; masks that are the pruner's own are only checked, their files keep their bytes."""
    pruned = Artifact.read(arguments.pruned)
    origin = provenance(("leap_repro.pipeline.stages.harden",), {"rule": arguments.rule}, {"pruned": pruned})
    sparsity = parse_sparsity(pruned.facts["sparsity"])
    pattern, scope = pruned.facts["pattern"], pruned.facts["budget_scope"]
    hardened = harden(read_pruned(pruned), pattern, scope, sparsity, arguments.rule)
    if not hardened.masks:
        raise UserError(f"{arguments.pruned} holds neither masks nor logits")
    neighbours = hardened.neighbours or pruned.facts.get("neighbours", [])
    rows, packed = [], {}
    for name, mask in hardened.masks.items():
        rows.append(tensor_row(name, mask))
        if hardened.rule != AS_PRUNED:
            packed[name] = pack(mask)
    counts = {row["tensor"]: (row["kept"], row["numel"]) for row in rows}
    check_budget(arguments.cell, counts, sparsity, hardened.scope, neighbours)
    check_pattern(arguments.cell, hardened.masks, pattern)
    with writing(arguments.output, origin) as (payload, facts):
        if packed:
            save_file(packed, payload / MASK_FILE)
        for name in cell_files(pruned) if not packed else ():
            place(pruned.file(name), payload / name)
        facts |= {
            "cell": arguments.cell,
            "sparsity": pruned.facts["sparsity"],
            "seed": pruned.facts["seed"],
            "tokens_sha256": pruned.facts["tokens_sha256"],
            "pattern": pattern,
            "budget_scope": hardened.scope,
            "neighbours": neighbours,
            "rule": hardened.rule,
            "kept": sum(row["kept"] for row in rows),
            "prunable": sum(row["numel"] for row in rows),
            "blocks": {str(block): list(counts) for block, counts in block_of(rows).items()},
            "tensors": rows,
        }
        facts |= {name: pruned.facts[name] for name in ("recovery",) if name in pruned.facts}


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline harden", description=__doc__)
    parser.add_argument("--pruned", required=True, type=Path, help="folder that the prune stage wrote")
    parser.add_argument("--rule", default="exact", choices=RULES, help="how logits become a mask")
    parser.add_argument("--cell", required=True, help="the cell's name, for messages")
    parser.add_argument("--output", required=True, type=Path)
    return parser
