"""How much of what one method keeps another keeps too: `python -m leap_repro.report.overlap`.

Jaccard's index of two masks of a model: the weights that both keep, by those that any of them keeps. Two masks of
density d that know nothing of each other have d / (2 - d). Masks are compared packed, matrix by matrix.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leap_repro.cli import run_stage
from leap_repro.report.collect import RESULTS, read_models
from leap_repro.report.command import table_parser
from leap_repro.report.layout import Methods, format_sparsity, is_dense, label_of, trained_note
from leap_repro.report.render import Table
from leap_repro.store.artifacts import MASK_FILE, Artifact
from leap_repro.store.tensor_files import TensorFiles

CELL = ["model", "method", "sparsity_target", "seed"]
COLUMNS = ["model", "sparsity_target", "method", "seed", "other", "other_seed", "jaccard", "independent"]


def jaccard(ours: TensorFiles, theirs: TensorFiles, places: int) -> tuple[float, float]:
    """Of two cells' packed masks of the same tensors, `places` weights in all: Jaccard's index, and what it would be of
    masks with these two densities that know nothing of each other. A packed mask's last bits, which are no weights,
    are 0."""
    both = either = mine = other = 0
    for name in ours:
        a, b = ours[name].numpy(), theirs[name].numpy()
        both += int(np.bitwise_count(a & b).sum())
        either += int(np.bitwise_count(a | b).sum())
        mine, other = mine + int(np.bitwise_count(a).sum()), other + int(np.bitwise_count(b).sum())
    chance = mine * other / places
    return both / either, chance / (mine + other - chance)


def overlaps(root: Path, cells: pd.DataFrame, again: Sequence[str] = ()) -> pd.DataFrame:
    """COLUMNS: every pair of methods of a model and sparsity, at the first seed of `cells`, and of the methods in
    `again` every pair of seeds. Each pair stands once, in the order of the cells."""
    rows = []
    for (model, sparsity), here in cells.groupby(["model", "sparsity_target"], sort=False):
        found = {(row.method, row.seed): Artifact.read(root / "harden" / path_of(row)) for row in here.itertuples()}
        masks = {key: TensorFiles([cell.file(MASK_FILE)]) for key, cell in found.items()}
        first = here["seed"].min()
        for one, other in combinations(masks, 2):
            seeds = one[0] == other[0] and one[0] in again
            if seeds or (one[0] != other[0] and one[1] == other[1] == first):
                shared = jaccard(masks[one], masks[other], found[one].facts["prunable"])
                rows.append([model, sparsity, *one, *other, *shared])
    return pd.DataFrame(rows, columns=COLUMNS)


def path_of(row: Any) -> str:
    """The path of a cell, a row of its keys."""
    return f"{row.model}/{row.method}/{row.sparsity_target:g}/{row.seed}"


def overlap_table(numbers: pd.DataFrame, methods: Methods) -> Table:
    """The matrix, without variants, at the highest sparsity at which seeds can be compared, or at the highest if none
    can; means over models; on the diagonal two seeds of one method."""
    seeds = numbers[numbers["method"] == numbers["other"]]
    here = numbers[numbers["sparsity_target"] == (seeds if len(seeds) else numbers)["sparsity_target"].max()]
    ran = set(here["method"]) | set(here["other"])
    names = [name for name in methods if name in ran and not methods[name].get("variant_of")]
    either_way = pd.concat([here, here.rename(columns={"method": "other", "other": "method"})])
    means = either_way.groupby(["method", "other"])["jaccard"].mean()
    cells = [[f"{means[one, other]:.2f}" if (one, other) in means else "" for other in names] for one in names]
    shown = pd.DataFrame(cells, columns=[label_of(name, methods) for name in names])
    shown.insert(0, "Method", [label_of(name, methods) for name in names])
    shown.insert(0, "Sparsity", format_sparsity(here["sparsity_target"].max()))
    chance = here["independent"].mean()
    caption = f"Overlap of two masks (Jaccard index), mean of up to {here['model'].nunique()} models"
    return Table(caption, shown, numbers, notes=NOTES.format(chance=chance) + trained_note(names, methods))


NOTES = (
    "The number of weights that both masks keep, divided by the number that at least one keeps: 1 for the same mask, "
    "{chance:.2f} for independent masks of this density. On the diagonal: two seeds of the same method, mean of the "
    "pairs; empty for a method with one seed. Means over the models that both ran on. The CSV has every method, model "
    "and sparsity."
)


def compared(results: pd.DataFrame, methods: Methods) -> pd.DataFrame:
    """The cells whose masks are compared: of every method that prunes; those with several seeds once for each."""
    cells = results.drop_duplicates(CELL)[CELL]
    return cells[[name in methods and not is_dense(name, methods) for name in cells["method"]]]


def main(arguments: argparse.Namespace) -> None:
    """Read the cells' masks and write the table."""
    results = read_models(arguments.root, arguments.models, RESULTS)
    cells = compared(results, arguments.methods)
    numbers = overlaps(arguments.cells_root, cells, again=list(arguments.methods))
    overlap_table(numbers, arguments.methods).write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = table_parser("overlap", __doc__)
    parser.add_argument("--cells-root", required=True, type=Path, help="the scale's results folder, with its cells")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
