"""`python -m leap_repro.report.clean_up`: delete files that no collected result of a model needs any more.

"tokens" are the shards that masks were trained on; they are made again, to the byte, from text and tokenizer. "logits"
are those of learned masks; only a training makes them again. Manifests, provenance, logs, masks and values are kept, so
that every number can still be traced. A job that needs a deleted file stops and says how it is made again.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

from leap_repro.cli import json_argument, run_stage
from leap_repro.sparsity.pruned import logit_files
from leap_repro.store.artifacts import MANIFEST, Artifact
from leap_repro.store.atomic import write_json

log = logging.getLogger(__name__)
KINDS = ("tokens", "logits")


def chosen(
    root: Path, model: str, cells: list[str], kinds: list[str], readers: dict[str, list[str]]
) -> Iterator[tuple[Artifact, list[str]]]:
    """The artifacts that have something to delete, each with the names of its files.

    Logits of a cell that others (`readers`: {cell: [cells]}) have still to harden by another rule stay.
    """
    if "tokens" in kinds:
        for manifest in sorted(root.glob(f"calibration/{model}/mask_training*/*/{MANIFEST}")):
            shard = Artifact.read(manifest)
            yield shard, sorted(shard.files)
    for cell in cells if "logits" in kinds else ():
        if not all((root / "harden" / reader / MANIFEST).is_file() for reader in readers.get(cell, [])):
            continue
        pruned = Artifact.read(root / "prune" / cell)
        yield pruned, logit_files(pruned)


def main(arguments: argparse.Namespace) -> None:
    """Delete, and write down what was deleted: {folder under the root: bytes}."""
    found = chosen(arguments.root, arguments.model, arguments.cells, arguments.kinds, arguments.readers)
    sizes = {str(artifact.folder.relative_to(arguments.root)): artifact.delete(names) for artifact, names in found}
    log.info("%s: %d bytes deleted", arguments.model, sum(sizes.values()))
    write_json(arguments.output, {folder: size for folder, size in sizes.items() if size})


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.report.clean_up", description=__doc__)
    parser.add_argument("--root", required=True, type=Path, help="folder of the scale's results")
    parser.add_argument("--model", required=True, help="the model whose cells are collected")
    parser.add_argument(
        "--cells", required=True, nargs="+", help="<model>/<method>/<sparsity>/<seed> of the collected cells"
    )
    parser.add_argument("--kinds", required=True, nargs="+", choices=KINDS, help="kinds of files to delete")
    parser.add_argument(
        "--readers", type=json_argument, default={}, help="{cell: [cells that harden its logits by another rule]}"
    )
    parser.add_argument("--output", required=True, type=Path, help="file for the list of deleted files")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
