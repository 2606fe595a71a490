"""`leap-repro config`: print the resolved configuration of a run, each method with everything that it inherits.

The files of `config/` are merged over `config.yaml` in the order of their names, then the user's files (Snakemake's
--configfile), and last single values (its --config). Mappings are merged; a list replaces the other list.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from leap_repro.cli import run_stage
from leap_repro.errors import UserError, shown
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.inheritance import resolve, with_data
from leap_repro.pipeline.inputs import check_yaml

MAIN, FOLDER = "config.yaml", "config"


def project_files(project: Path = Path()) -> list[Path]:
    """The files of the project's own configuration, each laid over those before it; none without a config.yaml."""
    main = project / MAIN
    return [main, *sorted((project / FOLDER).glob("*.yaml"))] if main.is_file() else []


def some_files(files: list[Path], project: Path = Path()) -> list[Path]:
    """The files of a configuration; UserError if there are none."""
    if not files:
        raise UserError(f"there is no {MAIN} in {project.absolute()}: run this in a clone of the repository")
    return files


def read_config(paths: Iterable[Path] = (), project: Path = Path()) -> dict[str, Any]:
    """The project's own configuration with the files `paths` laid over it, as Snakemake's --configfile does.

    UserError for a path that is no file, or where there is no configuration at all.
    """
    config: dict[str, Any] = {}
    for path in some_files([*project_files(project), *paths], project):
        if not path.is_file():
            raise UserError(f"config {shown(str(path))} is not a file")
        check_yaml(path)
        update_config(config, yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader) or {})
    return with_data(config)


def resolved(config: dict[str, Any], scale: str | None = None, method: str | None = None) -> dict[str, Any]:
    """The checked configuration of one scale, every line whole, or one such line alone; it can be read again.

    UserError for what a run would refuse, or for a method that is none.
    """
    config = config | ({"scale": scale} if scale else {})
    study = read_study(config)
    found = resolve(with_data(config))
    names = study.methods if method is None else [study.methods[method].name]
    lines = {name: found["methods"][name] for name in names}
    return found | {"scales": {study.scale: found["scales"][study.scale]}, "methods": lines}


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_yaml(config: dict[str, Any]) -> str:
    """As people and Snakemake read it; what stands in two places is written twice."""
    return yaml.dump(config, Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True, width=100)


def main(arguments: argparse.Namespace) -> None:
    """Read, check, resolve, print."""
    found = resolved(read_config(arguments.config), arguments.scale, arguments.method)
    print(as_yaml({"methods": found["methods"]} if arguments.method else found), end="")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="leap-repro config", description=__doc__)
    parser.add_argument(
        "--config", type=Path, nargs="+", default=[], help="merged over the project's configuration, in this order"
    )
    parser.add_argument("--scale", help="instead of the configuration's")
    parser.add_argument("--method", help="print this entry only")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
