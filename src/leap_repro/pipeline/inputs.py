"""What can be known of a study's inputs before any job runs: that they are there, whole, and fit its lengths.

Every dry run pays for these checks, so they read headers and configurations only, never weights or text. The check for
keys that stand twice is ours: ruamel.yaml finds them too, but does not say in which mapping.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from leap_repro.errors import UserError, reason, shown
from leap_repro.models.checkpoint import (
    ADAPTERS,
    has_adapter,
    position_limit,
    read_config,
    refuse_quantised,
    tensors,
)
from leap_repro.models.sources import source_of
from leap_repro.pipeline.config import Scale
from leap_repro.pipeline.grid import Method, Study
from leap_repro.pipeline.roles import parts_of
from leap_repro.places import check_makable, expanded
from leap_repro.store.questions import check_forms

TEXT_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json.gz", ".txt")
TEMPLATE = "__use_yte__"
"""The key by which Snakemake takes a file for a template and runs the Python that stands in it."""


def check_yaml(path: Path) -> None:
    """UserError for a file that is not a YAML mapping, holds itself, has a key twice in one mapping, or
    asks Snakemake to run code that stands in it.

    YAML would take the last of two keys without a word, and Snakemake does not say in which line a mistake is.
    """
    try:
        text = path.read_text(encoding="utf-8")
        yaml.load(text, Loader=yaml.CSafeLoader)
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or reason(error)
        raise UserError(f"{path}{_line(error)} is not YAML: {problem}") from error
    except (OSError, ValueError, RecursionError, AttributeError) as error:  # the last for `!!timestamp x`
        why = error.strerror if isinstance(error, OSError) else "it must be YAML in UTF-8, nested a few levels deep"
        raise UserError(f"{path} cannot be read: {why}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path} is not a mapping; it must hold keys such as scale, scales and methods")
    _check_unique_keys(path, root, "", set(), set())


def _line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}," if mark else ""


def _check_unique_keys(path: Path, node: yaml.Node, place: str, above: set[int], done: set[int]) -> None:
    """Check one node; `above` holds those that it lies in, `done` those that an alias need not check again."""
    if id(node) in above:
        raise UserError(f"{path}, line {node.start_mark.line + 1}: an alias contains itself")
    if id(node) in done or isinstance(node, yaml.ScalarNode):
        return
    above, seen = above | {id(node)}, {}
    done.add(id(node))
    for item in node.value:
        key, value = item if isinstance(node, yaml.MappingNode) else (None, item)
        name = f"{place}{key.value}" if key else place
        if key and key.value == TEMPLATE:
            _refuse_template(path, key.start_mark.line + 1)
        if key and name in seen:
            line = key.start_mark.line + 1
            raise UserError(f"{path}: the key {name} is on lines {seen[name]} and {line}; it may appear once")
        if key:
            seen[name] = key.start_mark.line + 1
        _check_unique_keys(path, value, f"{name}." if key else place, above, done)


def _refuse_template(path: Path, line: int) -> None:
    """Wherever the key stands, for YAML's << moves it up."""
    raise UserError(
        f"{path}, line {line}: the key {TEMPLATE} makes Snakemake run Python code in the file (if "
        "this is a --configfile, it has run already); a configuration may have values only: remove the key"
    )


def check_inputs(study: Study, outputs: tuple[str, ...]) -> list[str]:
    """UserError for the first local model, text or task set that cannot be used, or output folder not to be written.

    Paths are relative to the working directory, as the jobs see them. Returns a sentence for each thing that is right
    but may surprise.
    """
    notes = []
    for folder in outputs:
        check_makable(Path(folder))
    for name, spec in study.models.items():
        folder = _model_folder(f"scales.{study.scale}.models.{name}", spec)
        if folder is not None:
            if "path" in spec:
                _refuse_braces(f"scales.{study.scale}.models.{name}.path", [folder])
            _check_model(f"scales.{study.scale}.models.{name}", folder, study.settings)
            if has_adapter(folder):
                notes.append(
                    f"scales.{study.scale}.models.{name}: the adapter in {folder} ({ADAPTERS[0]}) is not applied"
                )
    for name in dict.fromkeys(name for grid in study.grids for name in study.grid_methods(grid)):
        try:
            files = method_files(study.methods[name])
        except UserError as error:
            raise UserError(f"config: methods.{name}: {error}") from error
        _refuse_braces(f"methods.{name}.options.path", files)
    for role, spec in study.data.items():
        place = f"scales.{study.scale}.data.{_key(role)}"
        if spec["source"] == "hub" and role == "tasks":
            _check_hub_sets(f"scales.{study.scale}.data.tasks.sets", spec["sets"])
        if spec["source"] == "path":
            _check_data(f"{place}.path", role, spec["path"])
            _refuse_braces(f"{place}.path", [Path(spec["path"])])
    return notes


def _key(role: str) -> str:
    """Where a role's source stands under `data`."""
    usual, text = parts_of(role)
    return f"texts.{text}.{usual}" if text else role


def method_files(method: Method) -> list[Path]:
    """The files on this machine that a method's options name; UserError if they are not there."""
    return list(getattr(method.options, "files", []))


def _refuse_braces(key: str, files: Iterable[Path]) -> None:
    """UserError for a file that Snakemake would not find: a brace always begins a wildcard."""
    for file in files:
        if set("{}") & set(str(file)):
            why = "Snakemake reads braces as wildcards: rename it, or give a link without braces"
            raise UserError(f"config: {key} is {shown(str(file))}; {why}")


def _model_folder(key: str, spec: dict[str, Any]) -> Path | None:
    """The folder of a model that lies on this machine; None for one that has to be fetched first."""
    try:
        return source_of(spec).folder(spec)
    except UserError as error:
        raise UserError(f"config: {key}.{error}") from error


def _check_model(key: str, folder: Path, settings: Scale) -> None:
    try:
        refuse_quantised(folder, tensors(folder))
        limit = position_limit(read_config(folder))
    except UserError as error:
        raise UserError(f"config: {key}: {error}") from error
    for name, length in _lengths(settings):
        if limit is not None and length > limit:
            raise UserError(f"config: {name} is {length}; {key} has {limit} positions, so it may be {limit} at most")


def _lengths(settings: Scale) -> Iterator[tuple[str, int]]:
    for name in ("calibration", "mask_training"):
        shard = getattr(settings, name)
        if shard:
            yield f"{name}.length", shard.length
    for length in settings.evaluation.perplexity_lengths:
        yield "evaluation.perplexity_lengths", length


def _check_hub_sets(key: str, sets: dict[str, Any]) -> None:
    try:
        check_forms({name: set(part["files"]) for name, part in sets.items()})
    except UserError as error:
        raise UserError(f"config: {key}: {error}") from error


def task_files(spec: dict[str, Any]) -> list[Path]:
    """The parquet files of the task sets, and tasks beyond the six, that lie on this machine."""
    found = sorted(Path(spec["path"]).expanduser().glob("*/*.parquet")) if "path" in spec else []
    for part in spec.get("further", {}).values():
        found += sorted(Path(part["path"]).expanduser().glob("*.parquet")) if "path" in part else []
    return found


def _check_data(key: str, role: str, text: str) -> None:
    path = expanded(Path(text), f"config: {key}")
    if role == "tasks":
        if not any(path.glob("*/*.parquet")):
            one = "it must be a folder with <set>/<split>.parquet files"
            raise UserError(f"config: {key} is {shown(text)}; {one}")
    elif not path.name.endswith(TEXT_SUFFIXES):
        suffixes = list(TEXT_SUFFIXES)
        raise UserError(f"config: {key} is {shown(text)}; it must end in one of {suffixes}")
    elif not path.is_file():
        raise UserError(f"config: {key} is {shown(text)}; it must be a file that exists")
    elif not os.access(path, os.R_OK):
        raise UserError(f"config: {key} is {shown(text)}; it must be a file that may be read")
