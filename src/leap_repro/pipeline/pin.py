"""`leap-repro pin`: write commits and sha256 digests of the configuration's hub sources into the lock file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leap_repro.checked import check_values
from leap_repro.cli import run_stage
from leap_repro.errors import UserError, shown
from leap_repro.hub.lock import LOCK_FILE, hub_parts, key, read_lock, repositories
from leap_repro.hub.pin import Wanted, pin_all
from leap_repro.hub.repository import Repository
from leap_repro.pipeline.config import Config
from leap_repro.pipeline.reading import read_config


def hub_sources(config: dict[str, Any]) -> Iterator[tuple[str, Repository, list[str] | None]]:
    """(name in the config, repository, file patterns or None for a model) of every hub source of every scale."""
    for settings in config["scales"].values():
        for name, spec in settings["models"].items():
            for repository in repositories(spec, "model"):
                yield name, repository, None
        usual = {role: spec for role, spec in settings["data"].items() if role != "texts"}
        others = [(name, spec) for name, own in settings["data"].get("texts", {}).items() for spec in own.values()]
        for role, spec in [*usual.items(), *others]:
            for repository, source in zip(repositories(spec, "dataset"), hub_parts(spec), strict=True):
                files = source["files"]
                yield role, repository, list(files.values() if isinstance(files, dict) else files)


def chosen(config: dict[str, Any], names: list[str]) -> Wanted:
    """The repositories to pin with all patterns that any source has for them.

    Raises UserError for an unknown name, or for one repository that is requested at two revisions.
    """
    sources = list(hub_sources(config))
    known = {name for name, _, _ in sources}
    if unknown := sorted(set(names) - known):
        raise UserError(f"{shown(unknown[0])} is not a hub source of the config; the hub sources are {sorted(known)}")
    wanted: Wanted = {}
    for name, repository, patterns in sources:
        if not names or name in names:
            twin = next((other for other in wanted if key(other) == key(repository) and other != repository), None)
            if twin:
                raise UserError(
                    f"{repository} is requested at two revisions, {twin.revision} and {repository.revision}"
                )
            wanted[repository] = None if patterns is None else (wanted.get(repository) or []) + patterns
    return wanted


def main(arguments: argparse.Namespace) -> None:
    """Check the configuration, pin every chosen source, write the lock."""
    config = read_config(arguments.config)
    check_values(Config, config, "config")
    lock = read_lock(arguments.lock) if arguments.names else {}
    lock = pin_all(chosen(config, arguments.names), lock, arguments.lock)
    print(f"{arguments.lock} pins {len(lock)} repositories")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="leap-repro pin", description=__doc__)
    parser.add_argument("names", nargs="*", help="models and data roles of the config; default: all")
    parser.add_argument(
        "--config", type=Path, nargs="+", default=[], help="merged over the project's configuration, in this order"
    )
    parser.add_argument("--lock", type=Path, default=LOCK_FILE)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
