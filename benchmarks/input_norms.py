"""How unequal the inputs of a matrix are: what Wanda weighs weights by, and magnitude does not.

    python benchmarks/input_norms.py MODEL TEXT [MODEL TEXT ...] --output benchmarks/input_norms.csv

For every matrix of each model: the norm of each input over 32 sequences of 128 tokens, its largest value by its median,
and its coefficient of variation. TEXT is parquet with a column `text`, or `miniature` for the miniature's calibration
text. The page beside the CSV has the medians over matrices.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import torch
from measure import markdown

from leap_repro.calibration.shards import random_windows
from leap_repro.miniature.bundled import bundled_models
from leap_repro.miniature.text import pages
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.models.prunable import prunable_linears
from leap_repro.store.atomic import write_text

SEQUENCES, LENGTH, SEED = 32, 128, 0
COLUMNS = {
    "largest_by_median": ("largest input by the median one", "{:.1f}"),
    "variation": ("coefficient of variation", "{:.2f}"),
}
"""{column: what the page calls it, and how it is written}"""


def texts_of(source: str) -> list[str]:
    """The documents that inputs are taken from."""
    return list(pages("calibration", 400)) if source == "miniature" else pq.read_table(source)["text"].to_pylist()


@torch.no_grad()
def norms(folder: Path, source: str) -> dict[str, torch.Tensor]:
    """{matrix: the norm of each of its inputs, float64 [in]}."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    squares: dict[str, torch.Tensor] = {}

    def note(name: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found = inputs[0].double().flatten(0, -2).square().sum(dim=0)
        squares[name] = squares.get(name, torch.zeros_like(found)) + found

    for linear in prunable_linears(model):
        linear.module.register_forward_pre_hook(partial(note, linear.name))
    for row in random_windows(tokenizer, texts_of(source), SEQUENCES, LENGTH, SEED):
        model(row.long()[None], use_cache=False)
    return {name: found.sqrt() for name, found in squares.items()}


def rows_of(folder: Path, source: str) -> list[dict[str, object]]:
    """A row per matrix."""
    return [
        {
            "model": folder.name,
            "matrix": name,
            "inputs": len(found),
            "largest_by_median": float(found.max() / found.median()),
            "variation": float(found.std() / found.mean()),
        }
        for name, found in norms(folder, source).items()
    ]


def page(rows: pd.DataFrame) -> str:
    """The medians over matrices, in Markdown."""
    by_model = rows.groupby("model", sort=False)
    shown = by_model.size().rename("matrices").reset_index()
    for column, (title, form) in COLUMNS.items():
        shown[title] = by_model[column].median().map(form.format).to_numpy()
    return markdown(shown, "")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("given", nargs="+", help="models and texts in turn")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    pairs = zip(given.given[::2], given.given[1::2], strict=True)
    bundled = bundled_models()
    rows = [row for model, text in pairs for row in rows_of(bundled.get(model, Path(model)), text)]
    pd.DataFrame(rows).to_csv(given.output, index=False, float_format="%.4g")
    write_text(given.output.with_suffix(".md"), page(pd.read_csv(given.output)))


if __name__ == "__main__":
    main()
