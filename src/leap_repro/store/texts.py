"""How text lies on disk between the stages: parquet with a column `text`, a row per document or line of the source.

Every row is kept as it came, blank ones too: WikiText's empty rows are part of the text that perplexity is measured on.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from leap_repro.store.artifacts import Artifact

TEXT_FILE = "text.parquet"
ROWS_PER_GROUP = 10_000
SCHEMA = pa.schema([("text", pa.string())])


def write_texts(texts: Iterable[str], path: Path) -> tuple[int, int, bool]:
    """Write documents in row groups without holding them all: (rows, characters, whether any is more than blank).

    A failure on the way leaves no file.
    """
    rows, characters, any_text, batch = 0, 0, False, []
    try:
        with pq.ParquetWriter(path, SCHEMA) as writer:
            for text in texts:
                batch.append(text)
                rows, characters, any_text = rows + 1, characters + len(text), any_text or bool(text.strip())
                if len(batch) == ROWS_PER_GROUP:
                    writer.write_table(pa.table([pa.array(batch, pa.string())], SCHEMA))
                    batch = []
            if batch:
                writer.write_table(pa.table([pa.array(batch, pa.string())], SCHEMA))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return rows, characters, any_text


def text_files(artifact: Artifact) -> list[Path]:
    """The parquet files of a fetched text in order, each checked against its manifest; UserError if one is damaged."""
    return [artifact.file(name) for name in sorted(artifact.files)]


def read_texts(artifact: Artifact) -> list[str]:
    """All rows of a fetched text, in order."""
    tables = [pq.read_table(path, columns=["text"]) for path in text_files(artifact)]
    return [text or "" for table in tables for text in table.column("text").to_pylist()]
