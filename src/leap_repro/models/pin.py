"""`python -m leap_repro.models pin`: write commit and sha256s of the config's hub sources into the lock file."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config
from tqdm import tqdm

from leap_repro.artifacts import sha256_of
from leap_repro.config import check
from leap_repro.errors import UserError
from leap_repro.hub import RemoteFile, Repository, download, listing, matching, resolve
from leap_repro.lock import LOCK_FILE, Lock, entry_of, hub_parts, key, read_lock, repositories, write_lock
from leap_repro.models.fetch import hub_files

log = logging.getLogger(__name__)
SCHEMA = Path("workflow/schemas/config.schema.yaml")
Wanted = dict[Repository, list[str] | None]


def read_config(paths: list[Path]) -> dict[str, Any]:
    """The configuration in several files, each laid over those before it as Snakemake's --configfile does."""
    config: dict[str, Any] = {}
    for path in paths:
        if not path.is_file():
            raise UserError(f"config {str(path)!r} is not a file")
        update_config(config, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    return config


def hub_sources(config: dict[str, Any]) -> Iterator[tuple[str, Repository, list[str] | None]]:
    """(name in the config, repository, file patterns or None for a model) of every hub source of every scale."""
    for settings in config["scales"].values():
        for name, spec in settings["models"].items():
            for repository in repositories(spec, "model"):
                yield name, repository, None
        for role, spec in settings["data"].items():
            for repository, source in zip(repositories(spec, "dataset"), hub_parts(spec), strict=True):
                files = source["files"]
                yield role, repository, list(files.values() if isinstance(files, dict) else files)


def chosen(config: dict[str, Any], names: list[str]) -> Wanted:
    """The repositories to pin with all patterns that any source has for them.

    Raises UserError for an unknown name, or for one repository that is asked for at two revisions.
    """
    sources = list(hub_sources(config))
    known = {name for name, _, _ in sources}
    if unknown := sorted(set(names) - known):
        raise UserError(f"{unknown[0]!r} is no hub source of the config; the hub sources are {sorted(known)}")
    wanted: Wanted = {}
    for name, repository, patterns in sources:
        if not names or name in names:
            twin = next((other for other in wanted if key(other) == key(repository) and other != repository), None)
            if twin:
                raise UserError(
                    f"{repository} is asked for at two revisions, {twin.revision} and {repository.revision}"
                )
            wanted[repository] = None if patterns is None else (wanted.get(repository) or []) + patterns
    return wanted


def pin_repository(asked: Repository, patterns: list[str] | None) -> tuple[Repository, list[RemoteFile]]:
    """Resolve one repository; the sha256 of small files, which the hub does not list, comes from fetching them."""
    repository = resolve(asked)
    files = listing(repository)
    wanted = hub_files(files, repository) if patterns is None else matching(files, patterns, repository)
    return repository, [
        file if file.sha256 else replace(file, sha256=sha256_of(download(repository, file))) for file in wanted
    ]


def pin(arguments: argparse.Namespace) -> None:
    """Pin every chosen source, then write the lock in one go: entries of other sources stay as they are."""
    config = read_config(arguments.config)
    check(config, SCHEMA)
    wanted = chosen(config, arguments.names)
    lock: Lock = read_lock(arguments.lock) if arguments.names else {}
    for asked, patterns in tqdm(wanted.items(), desc="pinning", unit="repository"):
        repository, files = pin_repository(asked, patterns)
        lock[key(repository)] = entry_of(repository, asked.revision, files)
        log.info("%s: %s, %d files", repository, repository.revision, len(files))
    write_lock(arguments.lock, lock)
    print(f"{arguments.lock} pins {len(lock)} repositories")


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `pin` to the commands of `python -m leap_repro.models`."""
    parser = commands.add_parser("pin", help="resolve the config's hub sources into the lock file", description=__doc__)
    parser.add_argument("names", nargs="*", help="models and data roles of the config; without any: all")
    parser.add_argument(
        "--config", type=Path, nargs="+", default=[Path("config.yaml")], help="as many as Snakemake has"
    )
    parser.add_argument("--lock", type=Path, default=LOCK_FILE)
    parser.set_defaults(run=pin)
