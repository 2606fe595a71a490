"""`python tools/option_tables.py PAGES`: write the option tables of docs/methods from the methods' declarations.

The text between `<!-- options of NAME -->` and `<!-- /options of NAME -->` is the table of that method, or of one of
the SHARED kinds, whose options have one table for all methods, in docs/methods/options.md.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import WrapValidator
from pydantic.fields import FieldInfo

from leap_repro.cli import run_stage
from leap_repro.prune.declaration import Options
from leap_repro.prune.layerwise.declaration import CalibratedOptions, SelectorOptions
from leap_repro.prune.layerwise.grouped import GroupedOptions
from leap_repro.prune.learned.declaration import LoopOptions, TrainingOptions
from leap_repro.prune.methods import declaration
from leap_repro.store.atomic import write_text

BLOCK = re.compile(r"<!-- options of (?P<name>\S+) -->\n.*?<!-- /options of (?P=name) -->", re.DOTALL)
HEAD = "| option | default | allowed | meaning |\n|---|---|---|---|"
SHARED = {
    "layer-wise masks": SelectorOptions,
    "calibration": CalibratedOptions,
    "groups": GroupedOptions,
    "training": LoopOptions,
    "learned masks": TrainingOptions,
}
"""{heading in docs/methods/options.md: the class of these options}"""


def table(options: type[Options]) -> str:
    """A row for each option of the class's own, and a sentence with links to those that it inherits."""
    own = _own(options)
    rows = [HEAD, *(_row(name, options.model_fields[name]) for name in own)] if own else []
    return "\n".join([*rows, *_inherited(options)])


def _anchor(heading: str) -> str:
    return heading.replace(" ", "-")


def _own(options: type[Options]) -> list[str]:
    return [name for name in options.model_fields if name in options.__annotations__]


def _inherited(options: type[Options]) -> list[str]:
    """A sentence with links to the tables of the SHARED kinds from which the class inherits options."""
    kinds = [heading for heading, shared in SHARED.items() if options is not shared and issubclass(options, shared)]
    links = [f"[{heading}](options.md#{_anchor(heading)})" for heading in kinds]
    return ["", f"Shared options: {', '.join(links)}."] if links else []


def _row(name: str, field: FieldInfo) -> str:
    return f"| `{name}` | {_value(field.default)} | {_allowed(field)} | {field.description} |"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"{value:g}" if isinstance(value, int | float) else f"`{value}`"


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(_value(choice) for choice in get_args(field.annotation))
    if field.annotation is bool:
        return "`true`, `false`"
    tellers = [part for part in field.metadata if isinstance(part, WrapValidator)]
    return tellers[0].func.args[0].removeprefix("it must be ") if tellers else f"`{_type_name(field)}`"


def _type_name(field: FieldInfo) -> str:
    return getattr(field.annotation, "__name__", str(field.annotation))


def filled(page: str) -> str:
    """A page's text with its tables as the declarations have them; UserError for a method that there is not."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        shared = {_anchor(heading): options for heading, options in SHARED.items()}
        options = shared.get(name) or declaration(name).options
        return f"<!-- options of {name} -->\n{table(options)}\n<!-- /options of {name} -->"

    return BLOCK.sub(block, page)


def main(arguments: argparse.Namespace) -> None:
    """Fill every page."""
    for page in arguments.pages:
        write_text(page, filled(page.read_text(encoding="utf-8")))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python tools/option_tables.py", description=__doc__)
    parser.add_argument("pages", type=Path, nargs="+")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
