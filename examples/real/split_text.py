"""Part documents into the sets of this study: `python examples/real/split_text.py FOLDER FILE [FILE ...]`.

FILEs hold C4 (parquet with a column `text`, or .json.gz as the hub has it). A document goes where the
sha256 of its text says, so that no document is in two sets, however often it occurs and in whatever
order the files are read:

    scoring.parquet        3 of 20   perplexity only
    calibration.parquet    6 of 20   calibration samples; the rest of it is for the choice of settings
    mask_training.parquet 11 of 20   what masks and weights are trained on
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from leap_repro.data.text import READERS
from leap_repro.store.texts import write_texts

PARTS = 20
SETS = {"scoring": range(3), "calibration": range(3, 9), "mask_training": range(9, PARTS)}


def documents(files: Iterable[Path]) -> Iterator[str]:
    """All documents once, in the files' order."""
    seen: set[str] = set()
    for file in files:
        reader = next(read for suffix, read in READERS.items() if file.name.endswith(suffix))
        for text in reader(file):
            if text and text not in seen:
                seen.add(text)
                yield text


def part(text: str) -> str:
    """The set that a document belongs to."""
    number = int(hashlib.sha256(text.encode()).hexdigest(), 16) % PARTS
    return next(name for name, numbers in SETS.items() if number in numbers)


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the three files are written")
    parser.add_argument("files", type=Path, nargs="+", help=f"text, in one of {sorted(READERS)}")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    texts = list(documents(given.files))
    for name in SETS:
        chosen = [text for text in texts if part(text) == name]
        write_texts(chosen, given.folder / f"{name}.parquet")
        print(f"{name}: {len(chosen)} documents, {sum(map(len, chosen)):,} characters")


if __name__ == "__main__":
    main()
