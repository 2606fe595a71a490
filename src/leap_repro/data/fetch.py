"""Where text and task sets come from: one function per source. Text ends as parquet with a column `text`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from leap_repro.errors import UserError, reason
from leap_repro.miniature.questions import task_sets
from leap_repro.miniature.text import SPLIT_PAGES, pages

TEXT_FILE = "text.parquet"
ROLES = ("calibration", "mask_training", "perplexity", "tasks")


def bundled_text(spec: dict[str, Any]) -> list[str]:
    """The miniature's pages of one split; UserError for an unknown split."""
    if spec.get("split") not in SPLIT_PAGES:
        raise UserError(f"bundled text has no split {spec.get('split')!r}; the splits are {sorted(SPLIT_PAGES)}")
    return pages(spec["split"])


def path_text(spec: dict[str, Any]) -> list[str]:
    """Documents from .parquet or .jsonl (a column or key `text`) or .txt (blank lines between documents).

    Raises UserError for another suffix, a missing file or column.
    """
    path = Path(spec["path"]).expanduser()
    readers = {".parquet": _parquet_text, ".jsonl": _jsonl_text, ".txt": _plain_text}
    if path.suffix not in readers:
        raise UserError(f"text path {spec['path']!r} must end in one of {sorted(readers)}")
    if not path.is_file():
        raise UserError(f"text path {spec['path']!r} is not a file")
    try:
        return [text for text in readers[path.suffix](path) if text and text.strip()]
    except (KeyError, TypeError, AttributeError, ValueError, pa.ArrowException) as error:
        raise UserError(f"text path {spec['path']!r} has no readable column or key 'text' ({reason(error)})") from error


def _parquet_text(path: Path) -> list[str]:
    return pq.read_table(path, columns=["text"]).column("text").to_pylist()


def _jsonl_text(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines if line.strip()]


def _plain_text(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n\n")


def fetch_text(spec: dict[str, Any], payload: Path) -> dict[str, Any]:
    """Write TEXT_FILE; returns documents and characters. UserError if there is no text at all."""
    sources: dict[str, Callable[[dict[str, Any]], list[str]]] = {"bundled": bundled_text, "path": path_text}
    texts = sources[_source(spec, tuple(sources))](spec)
    if not texts:
        raise UserError(f"the text of {spec} holds no document")
    pq.write_table(pa.table({"text": texts}), payload / TEXT_FILE)
    return {"documents": len(texts), "characters": sum(map(len, texts))}


def bundled_tasks(spec: dict[str, Any], payload: Path) -> None:
    """Write the miniature's six task sets, <set>/<split>.parquet, in the originals' schemas."""
    for name, splits in task_sets().items():
        (payload / name).mkdir()
        for split, rows in splits.items():
            pq.write_table(pa.Table.from_pylist(rows), payload / name / f"{split}.parquet")


def path_tasks(spec: dict[str, Any], payload: Path) -> None:
    """Copy a folder of task sets in the same layout; UserError if it is not one."""
    folder = Path(spec["path"]).expanduser()
    found = sorted(folder.glob("*/*.parquet"))
    if not found:
        raise UserError(f"tasks path {spec['path']!r} must be a folder with <set>/<split>.parquet files")
    for path in found:
        (payload / path.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(path, payload / path.parent.name / path.name)


REQUIRED_COLUMNS = {
    "piqa": {"goal", "sol1", "sol2", "label"},
    "winogrande": {"sentence", "option1", "option2", "answer"},
    "openbookqa": {"question_stem", "choices", "answerKey"},
    "arc_easy": {"question", "choices", "answerKey"},
    "arc_challenge": {"question", "choices", "answerKey"},
    "mmlu": {"question", "choices", "answer"},
}


def fetch_tasks(spec: dict[str, Any], payload: Path) -> dict[str, Any]:
    """Write the task sets; returns {set/split: rows}. UserError, naming the file, for a set with a missing column."""
    sources: dict[str, Callable[[dict[str, Any], Path], None]] = {"bundled": bundled_tasks, "path": path_tasks}
    sources[_source(spec, tuple(sources))](spec, payload)
    rows = {}
    for path in sorted(payload.glob("*/*.parquet")):
        rows[f"{path.parent.name}/{path.stem}"] = _checked_rows(path)
    return {"rows": rows}


def _checked_rows(path: Path) -> int:
    """The rows of <set>/<split>.parquet; UserError if it is no parquet, of no known set, or lacks a column."""
    name = f"{path.parent.name}/{path.name}"
    kind = "mmlu" if path.parent.name.startswith("mmlu_") else path.parent.name
    if kind not in REQUIRED_COLUMNS:
        raise UserError(
            f"task file {name} is of no known set; the sets are {sorted(REQUIRED_COLUMNS)} (mmlu_<subject>)"
        )
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise UserError(f"task file {name} is not readable parquet ({reason(error)})") from error
    missing = REQUIRED_COLUMNS[kind] - set(file.schema_arrow.names)
    if missing:
        raise UserError(f"task file {name} lacks the columns {sorted(missing)}")
    return file.metadata.num_rows


def _source(spec: dict[str, Any], allowed: tuple[str, ...]) -> str:
    if spec.get("source") not in allowed:
        raise UserError(f"data source {spec.get('source')!r} is not one of {sorted(allowed)}")
    return spec["source"]
