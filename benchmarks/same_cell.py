"""One cell, one factor at a time: how far the perplexity of the same pruned model moves by how it is made and measured.

    python benchmarks/same_cell.py --model models/smollm2-135m --text wikitext2-test.parquet \
        --calibration c4.parquet --other another-c4.parquet

prunes the model by Wanda to 50 % (8 sequences of 512 tokens), scores it on the first tokens of the text, and repeats
that with one choice changed. Rows go to `benchmarks/same_cell.csv` as they are measured, and a row that is there is not
measured again, so that a stopped run goes on. `docs/why-numbers-differ.md` shows them.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import torch
from measure import add_row, show

from leap_repro.evaluate.perplexity import SEPARATOR, window_losses, windows_of
from leap_repro.library.prune import prune_model
from leap_repro.models.load import load_model, load_tokenizer

TABLE = Path(__file__).with_suffix(".csv")
PAGE = "docs/why-numbers-differ.md"
TOKENS = 4096
"""Of the text that are scored, however they are cut into windows."""
LENGTH = 512
"""Of a calibration sequence, in tokens."""
SPARSITY = 0.5


@dataclass(frozen=True)
class Cell:
    """How the model is pruned (`calibration` to `sparsity`, 0: not at all) and scored (the rest)."""

    calibration: str = "C4"
    sequences: int = 8
    seed: int = 0
    sparsity: float = SPARSITY
    dtype: str = "float32"
    window: int = 2048
    text: str = "all rows"
    bos: str = "none"


BASE = Cell()
ROWS = {
    ("base", ""): BASE,
    ("window length", "512"): replace(BASE, window=512),
    ("window length", "1,024"): replace(BASE, window=1024),
    ("window length", "4,096"): replace(BASE, window=4096),
    ("text", "blank rows dropped"): replace(BASE, text="blank rows dropped"),
    ("text", "C4 instead of WikiText-2"): replace(BASE, text="C4"),
    ("BOS", "in every window"): replace(BASE, bos="every window"),
    ("number format of scoring", "bfloat16"): replace(BASE, dtype="bfloat16"),
    ("not pruned", ""): replace(BASE, sparsity=0),
    ("seed of the calibration sample", "1"): replace(BASE, seed=1),
    ("seed of the calibration sample", "2"): replace(BASE, seed=2),
    ("calibration set", "another part of C4"): replace(BASE, calibration="other C4"),
}
"""(factor, its other value): the cell. What a cell is pruned with repeats from row to row, and is pruned once."""


class Measured:
    """The model of `arguments`, pruned and scored as cells say."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.model = arguments.model
        self.tokenizer = load_tokenizer(arguments.model)
        self.texts = {"C4": arguments.calibration, "other C4": arguments.other, "WikiText-2": arguments.text}
        self.pruned = lru_cache(maxsize=1)(self._pruned)

    def perplexity(self, cell: Cell) -> float:
        """Of the first TOKENS tokens of the text."""
        windows_NT = self._windows(cell)
        model = self.pruned(replace(cell, dtype="", window=0, text="", bos=""))
        with torch.inference_mode():
            scored = copy.deepcopy(model).bfloat16() if cell.dtype == "bfloat16" else model
            return math.exp(window_losses(scored, windows_NT, batch_size=1).mean())

    def _windows(self, cell: Cell) -> torch.Tensor:
        rows = self._documents("other C4" if cell.text == "C4" else "WikiText-2")
        kept = [row for row in rows if row.strip() or cell.text != "blank rows dropped"]
        ids = self.tokenizer(SEPARATOR.join(kept), verbose=False)["input_ids"][:TOKENS]
        bos = self.tokenizer.bos_token_id if cell.bos == "every window" else None
        return windows_of(ids, cell.window, bos)

    def _documents(self, name: str) -> list[str]:
        return pq.read_table(self.texts[name], columns=["text"]).column("text").to_pylist()

    def _pruned(self, cell: Cell) -> Any:
        if not cell.sparsity:
            return load_model(self.model)
        pruned = prune_model(
            self.model,
            method="wanda",
            sparsity=cell.sparsity,
            calibration=self._documents(cell.calibration),
            seed=cell.seed,
            sequences=cell.sequences,
            length=LENGTH,
        )
        return pruned.load()


def known() -> set[tuple[str, str]]:
    """(factor, value) of the rows that the table has."""
    if not TABLE.exists():
        return set()
    rows = pd.read_csv(TABLE, dtype=str, keep_default_na=False)
    return set(zip(rows["factor"], rows["value"], strict=True))


def measure(perplexity: Callable[[], float], factor: str, value: str) -> None:
    """Add a row, and its perplexity over the base's, unless it is there."""
    if (factor, value) in known():
        return
    found = perplexity()
    base = found if factor == "base" else float(pd.read_csv(TABLE).set_index("factor").loc["base", "perplexity"])
    row = {"factor": factor, "value": value, "perplexity": f"{found:.2f}", "times base": f"{found / base:.3f}"}
    add_row(TABLE, row, ("factor", "value"))
    print(row, flush=True)


def main() -> None:
    """Measure the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="folder of a checkpoint, SmolLM2-135M for example")
    for name in ("text", "calibration", "other"):
        parser.add_argument(f"--{name}", required=True, type=Path, help="parquet with a column text")
    measured = Measured(parser.parse_args())
    for (factor, value), cell in ROWS.items():
        measure(lambda cell=cell: measured.perplexity(cell), factor, value)
    show(PAGE)


if __name__ == "__main__":
    main()
