"""Where task sets come from: one function per source. They end as <set>/<split>.parquet in the originals' schemas."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from leap_repro.errors import UserError, reason
from leap_repro.hub.client import download, matching
from leap_repro.hub.lock import Lock, check_expected, pinned_files
from leap_repro.hub.repository import Repository
from leap_repro.miniature.questions import task_sets
from leap_repro.store.atomic import place
from leap_repro.store.questions import check_sets


def bundled_tasks(spec: dict[str, Any], payload: Path, lock: Lock) -> None:
    """Write the miniature's six task sets in the originals' schemas."""
    for name, splits in task_sets().items():
        (payload / name).mkdir()
        for split, rows in splits.items():
            pq.write_table(pa.Table.from_pylist(rows), payload / name / f"{split}.parquet")


def path_tasks(spec: dict[str, Any], payload: Path, lock: Lock) -> None:
    """Copy a folder of task sets in the same layout; UserError if it is not one."""
    found = sorted(Path(spec["path"]).expanduser().glob("*/*.parquet"))
    if not found:
        raise UserError(f"tasks path {spec['path']!r} must be a folder with <set>/<split>.parquet files")
    for path in found:
        (payload / path.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(path, payload / path.parent.name / path.name)


def hub_tasks(spec: dict[str, Any], payload: Path, lock: Lock) -> None:
    """The sets of a config's `sets:`, each from its own repository; UserError as in `leap_repro.hub.client`."""
    for name, source in spec["sets"].items():
        _hub_set(name, source, payload, lock)


def further_tasks(spec: dict[str, Any], payload: Path, lock: Lock) -> None:
    """The sets of `further:`, from the hub or a folder with <split>.parquet; UserError, by name, for an empty one."""
    for name, source in spec.get("further", {}).items():
        if "id" in source:
            _hub_set(name, source, payload, lock)
            continue
        found = sorted(Path(source["path"]).expanduser().glob("*.parquet"))
        if not found:
            raise UserError(f"task {name}: path {source['path']!r} must be a folder with <split>.parquet files")
        for path in found:
            (payload / name).mkdir(exist_ok=True)
            shutil.copyfile(path, payload / name / path.name)


def _hub_set(name: str, source: dict[str, Any], payload: Path, lock: Lock) -> None:
    asked = Repository("dataset", source["id"], source["revision"])
    repository, files = pinned_files(lock, asked)
    rows = {}
    for split, pattern in source["files"].items():
        (file,) = _single(matching(files, [pattern], repository), pattern, repository)
        rows[split] = _write_split(download(repository, file), payload, name, split, source.get("split_by"))
    check_expected(f"task set {name} of {repository}", source.get("expect"), rows)


def _single(found: list, pattern: str, repository: Repository) -> list:
    if len(found) > 1:
        raise UserError(f"{pattern!r} names {len(found)} files of {repository}; a split is one file")
    return found


def _write_split(cached: Path, payload: Path, name: str, split: str, column: str | None) -> int:
    """Place one split: parquet as it is, JSON lines converted, or cut into one set per value of `column`; the rows."""
    try:
        if cached.suffix == ".parquet" and column is None:
            place(cached, payload / name / f"{split}.parquet")
            return pq.ParquetFile(cached).metadata.num_rows
        table = pq.read_table(cached) if cached.suffix == ".parquet" else pyarrow.json.read_json(cached)
        values = [None] if column is None else sorted(table.column(column).unique().to_pylist(), key=str)
    except (KeyError, pa.ArrowException) as error:
        raise UserError(f"task set {name}: the file of split {split!r} cannot be read ({reason(error)})") from error
    for value in values:
        _refuse_path(name, column, value)
        target = payload / (name if value is None else f"{name}_{value}") / f"{split}.parquet"
        target.parent.mkdir(exist_ok=True)
        part = table if value is None else table.filter(pc.call_function("equal", [table.column(column), value]))
        pq.write_table(part, target)
    return table.num_rows


def _refuse_path(name: str, column: str | None, value: object) -> None:
    """UserError for a value of `split_by` that cannot be the end of a folder's name."""
    if column is not None and not (isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]+", value)):
        allowed = "it becomes a folder, so it may have letters, digits, _ and - only"
        raise UserError(f"task set {name}: split_by {column!r} has the value {value!r}; {allowed}")


SOURCES: dict[str, Callable[[dict[str, Any], Path, Lock], None]] = {
    "bundled": bundled_tasks,
    "path": path_tasks,
    "hub": hub_tasks,
}


def place_tasks(spec: dict[str, Any], payload: Path, lock: Lock | None = None) -> None:
    """Write the task sets as <set>/<split>.parquet; UserError, naming the file, for one that cannot be had."""
    if spec.get("source") not in SOURCES:
        raise UserError(f"data source {spec.get('source')!r} is not one of {sorted(SOURCES)}")
    SOURCES[spec["source"]](spec, payload, lock or {})
    further_tasks(spec, payload, lock or {})


def fetch_tasks(spec: dict[str, Any], payload: Path, lock: Lock | None = None) -> dict[str, Any]:
    """Place the task sets; returns {"rows": {set/split: rows}}, and the "definitions" of tasks beyond the six if any.

    Raises UserError, naming set and file, as `store.questions.check_sets` for sets that cannot be scored.
    """
    place_tasks(spec, payload, lock)
    definitions = {name: source["definition"] for name, source in spec.get("further", {}).items()}
    rows = check_sets(payload.glob("*/*.parquet"), definitions)
    return {"rows": rows} | ({"definitions": definitions} if definitions else {})
