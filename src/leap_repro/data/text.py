"""Where text comes from: one function per source. It ends as parquet with a column `text`, every row as it came."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from leap_repro.errors import UserError, reason
from leap_repro.hub.client import download, matching
from leap_repro.hub.lock import Lock, check_expected, pinned_files, repositories
from leap_repro.miniature.left_out import LEFT_OUT
from leap_repro.miniature.text import SPLIT_PAGES, WITHOUT_PAGES, pages
from leap_repro.store.atomic import place
from leap_repro.store.texts import TEXT_FILE, write_texts

UNREADABLE = (KeyError, TypeError, AttributeError, ValueError, EOFError, gzip.BadGzipFile, pa.ArrowException)
Counts = tuple[int, int, bool]


def bundled_text(spec: dict[str, Any], payload: Path, lock: Lock) -> Counts:
    """The miniature's pages of one split, in whole or without some facts; UserError for an unknown split."""
    without = spec.get("without")
    splits = SPLIT_PAGES if without is None else WITHOUT_PAGES
    if spec.get("split") not in splits:
        raise UserError(f"bundled text has no split {spec.get('split')!r}; the splits are {sorted(splits)}")
    if without is not None and without not in LEFT_OUT:
        raise UserError(f"without is {without!r}; a bundled text may be without one of {sorted(LEFT_OUT)}")
    return write_texts(pages(spec["split"], without=without), payload / TEXT_FILE)


def path_text(spec: dict[str, Any], payload: Path, lock: Lock) -> Counts:
    """Text of this machine, in one of the forms of READERS; UserError for another suffix, a missing file or column."""
    path = Path(spec["path"]).expanduser()
    if _suffix(path.name) is None:
        raise UserError(f"text path {spec['path']!r} must end in one of {sorted(READERS)}")
    if not path.is_file():
        raise UserError(f"text path {spec['path']!r} is not a file")
    return _converted(path, payload / TEXT_FILE, f"text path {spec['path']!r}")


def hub_text(spec: dict[str, Any], payload: Path, lock: Lock) -> Counts:
    """The files of a data set on the hub, in order: parquet as it is, others converted; UserError as in `hub`."""
    (asked,) = repositories(spec, "dataset")
    repository, files = pinned_files(lock, asked)
    counts = []
    for index, file in enumerate(matching(files, spec["files"], repository)):
        name, target = f"{file.path} of {repository}", payload / f"text-{index:05d}.parquet"
        if _suffix(file.path) is None:
            raise UserError(f"{name} must end in one of {sorted(READERS)}")
        cached = download(repository, file)
        counts.append(
            _taken(cached, target, name) if _suffix(file.path) == ".parquet" else _converted(cached, target, name)
        )
    rows, characters, any_text = zip(*counts, strict=True)
    return sum(rows), sum(characters), any(any_text)


def _taken(cached: Path, target: Path, name: str) -> Counts:
    """Place a parquet file as it is, after counting its text group by group; UserError if it has no text column."""
    rows, characters, any_text = 0, 0, False
    try:
        for batch in _text_column(cached).iter_batches(columns=["text"]):
            column = batch.column("text")
            rows += len(column)
            lengths = pc.call_function("utf8_length", [column])
            stripped = pc.call_function("utf8_length", [pc.call_function("utf8_trim_whitespace", [column])])
            characters += pc.call_function("sum", [lengths]).as_py() or 0
            any_text = any_text or bool(pc.call_function("max", [stripped]).as_py())
    except UNREADABLE as error:
        raise UserError(f"{name} cannot be read as text: {reason(error)}") from error
    place(cached, target)
    return rows, characters, any_text


def _converted(path: Path, target: Path, name: str) -> Counts:
    try:
        texts = READERS[str(_suffix(path.name))](path)
        return write_texts((text for text in texts if text is not None), target)
    except UNREADABLE as error:
        raise UserError(f"{name} cannot be read as text: {reason(error)}") from error


def _text_column(path: Path) -> pq.ParquetFile:
    """The file; ValueError if it has no column `text`, or one that holds no text."""
    file = pq.ParquetFile(path)
    if "text" not in file.schema_arrow.names:
        raise ValueError(f"it has no column 'text', only {file.schema_arrow.names}")
    kind = file.schema_arrow.field("text").type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise ValueError(f"its column 'text' is of type {kind}, not text")
    return file


def _parquet_text(path: Path) -> Iterator[str | None]:
    for batch in _text_column(path).iter_batches(columns=["text"]):
        yield from batch.column("text").to_pylist()


def _jsonl_text(path: Path) -> Iterator[str | None]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _text_of(line, number)


def _text_of(line: str, number: int) -> str | None:
    """The text in one line; ValueError that names the line, which the JSON reader, given one line only, cannot."""
    try:
        text = json.loads(line)["text"]
    except RecursionError as error:
        raise ValueError(f"line {number}: its brackets are too deep") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}, column {error.colno}: {error.msg}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"line {number} is not an object with a key 'text'") from error
    if text is not None and not isinstance(text, str):
        raise ValueError(f"line {number}: its 'text' is {text!r}, not a text")
    return text


def _plain_text(path: Path) -> Iterator[str]:
    yield from path.read_text(encoding="utf-8").split("\n\n")


READERS: dict[str, Callable[[Path], Iterator[str | None]]] = {
    ".parquet": _parquet_text,
    ".jsonl": _jsonl_text,
    ".jsonl.gz": _jsonl_text,
    ".json.gz": _jsonl_text,
    ".txt": _plain_text,
}
"""Parquet with a column `text`; per line a JSON object with a key `text`; plain text, blank lines between documents."""


def _suffix(name: str) -> str | None:
    return next((suffix for suffix in READERS if name.endswith(suffix)), None)


SOURCES: dict[str, Callable[[dict[str, Any], Path, Lock], Counts]] = {
    "bundled": bundled_text,
    "path": path_text,
    "hub": hub_text,
}


def fetch_text(spec: dict[str, Any], payload: Path, lock: Lock | None = None) -> dict[str, Any]:
    """Write the text's parquet files; returns rows ("documents") and characters.

    Raises UserError if there is no text at all, or if it is not of the expected size.
    """
    if spec.get("source") not in SOURCES:
        raise UserError(f"data source {spec.get('source')!r} is not one of {sorted(SOURCES)}")
    rows, characters, any_text = SOURCES[spec["source"]](spec, payload, lock or {})
    if not any_text:
        raise UserError(f"the text of {spec} holds no document")
    facts = {"documents": rows, "characters": characters}
    check_expected(str(spec.get("id", spec["source"])), spec.get("expect"), facts)
    return facts
