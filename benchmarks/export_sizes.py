"""How large the exports of cells are, in every format that can hold them, beside what theory says:
`python benchmarks/export_sizes.py --model RUN/models/NAME --cells RUN/harden/NAME/METHOD/SPARSITY/SEED …`.

Adds a row for each cell and format to benchmarks/export_sizes.csv and .md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from math import prod
from pathlib import Path
from typing import Any

from measure import add_row, show

from leap_repro.errors import UserError
from leap_repro.export.forms import FORMS
from leap_repro.export.index import INDEX_FILE
from leap_repro.export.lineage import lineage_of
from leap_repro.export.write import export_cell, weight_bytes
from leap_repro.models.checkpoint import FLOATING, tensors
from leap_repro.store.artifacts import Artifact

BYTES = dict(zip(FLOATING, (8, 4, 2, 2), strict=True))


def theory(form: str, kept: float, width: int) -> float:
    """The size of the pruned matrices as a share of the dense ones', whose weights have `width` bytes."""
    return {"packed": kept + 1 / (8 * width), "2:4": 0.5 + 1 / (8 * width)}[form]


def row(model: Artifact, cell: Artifact, form: str, dtype: str | None) -> dict[str, Any]:
    """The measured and the expected shares; UserError if the format cannot hold the cell."""
    base = model.verified_payload()
    with tempfile.TemporaryDirectory() as folder:
        output, dense = Path(folder) / "export", Path(folder) / "dense"
        export_cell(base, lineage_of(model, cell), output, dtype, form)
        export_cell(base, lineage_of(model, cell), dense, dtype)
        kind = next(iter(tensors(dense).values())).dtype
        sizes = weight_bytes(output), weight_bytes(dense)
        pruned = cell.facts["prunable"] * BYTES[kind]
        index = json.loads((output / INDEX_FILE).read_text(encoding="utf-8"))
        if sum(prod(entry["shape"]) for entry in index["tensors"].values()) * BYTES[kind] != pruned:
            raise UserError(
                f"{cell.folder}: tensors hold more than pruned matrices, so the share is not that of theory"
            )
    kept = cell.facts["kept"] / cell.facts["prunable"]
    return {
        "cell": cell.facts["cell"],
        "type": kind,
        "format": form,
        "pruned matrices, of dense": round(1 - (sizes[1] - sizes[0]) / pruned, 4),
        "theory": round(theory(form, kept, BYTES[kind]), 4),
        "weight files, of dense": round(sizes[0] / sizes[1], 4),
        "megabytes": round(sizes[0] / 1e6, 2),
    }


def main(arguments: argparse.Namespace) -> None:
    """Export, weigh, write."""
    for folder in arguments.cells:
        for form in FORMS:
            try:
                found = row(Artifact.read(arguments.model), Artifact.read(folder), form, arguments.dtype)
            except UserError as error:
                print(f"{folder}, {form}: {error}")
                continue
            print(found, flush=True)
            add_row(arguments.output, found, ("cell", "type", "format"))
    if arguments.output == parser().get_default("output"):
        show("docs/export-formats.md")


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/export_sizes.py", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of the fetched model")
    parser.add_argument("--cells", required=True, type=Path, nargs="+", help="folders of hardened cells")
    parser.add_argument("--dtype", help="of the exports, instead of each tensor's own")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
