"""From the configuration as it is written to one in which every line is whole: lines that extend others, groups of
lines, data of another scale.

A line's options come from the lines that it extends, from the first to itself; each lays over those before it what it
says under `options`, then what it or the scale says for this scale. So a variant's own option wins over its base's,
wherever that one stands.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from leap_repro.errors import UserError, shown

Lines = dict[str, dict[str, Any]]
Groups = dict[str, list[str]]

INHERITED = (
    "module",
    "sparsities",
    "warm_start",
    "pattern_start",
    "parent",
    "selector",
    "budget_from",
    "text",
    "hardening",
    "gpus",
)
"""What a line takes over from the line that it extends, besides options; the other keys are each line's own."""
GRIDS = ("methods", "extended")
GRIDS_OF_EVIDENCE = ("methods", "once")
"""Keys of a scale, and of its evidence, that list lines and groups."""
REFERENCES = ("warm_start", "pattern_start", "parent", "selector", "budget_from", "hardens", "variant_of")
"""Keys of a line that name another."""


def with_data(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the data of every scale whose `data` extends another's; UserError for an unknown scale.

    What has not the right form is left as it is: it is refused where forms are checked.
    """
    scales = config.get("scales")
    if not isinstance(scales, dict):
        return config
    return config | {"scales": {name: _with_data(name, scale, scales) for name, scale in scales.items()}}


def _with_data(name: str, scale: Any, scales: dict[str, Any]) -> Any:
    data = scale.get("data") if isinstance(scale, dict) else None
    if not isinstance(data, dict) or "extends" not in data:
        return scale
    sources = {other: each.get("data") for other, each in scales.items() if isinstance(each, dict)}
    whole = {other: found for other, found in sources.items() if isinstance(found, dict) and "extends" not in found}
    base = data["extends"]
    if not isinstance(base, str) or base not in whole:
        allowed = f"it must be a scale with data of its own: {sorted(whole)}"
        raise UserError(f"config: scales.{name}.data.extends is {shown(base)}; {allowed}")
    own = {role: source for role, source in data.items() if role != "extends"}
    return scale | {"data": _laid_over(whole[base], own)}


def _laid_over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`base` with `own` laid over it, mapping by mapping; one that names a `source` is another's whole."""
    found = copy.deepcopy(base)
    for key, value in own.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and "source" not in value:
            found[key] = _laid_over(below, value)
        else:
            found[key] = value
    return found


def base_of(line: dict[str, Any]) -> str | None:
    """The line that a line extends, be it to train otherwise or only to harden otherwise."""
    return line.get("extends") or line.get("hardens")


def chain(name: str, lines: Lines) -> list[str]:
    """The lines that a line is made of, the first base first, itself last; UserError for a circle or an unknown one."""
    found = [name]
    while base := base_of(lines[found[0]]):
        key = f"methods.{found[0]}.{'extends' if 'extends' in lines[found[0]] else 'hardens'}"
        if base not in lines:
            raise UserError(f"config: {key} is {shown(base)}; it must be one of {sorted(lines)}")
        if base in found:
            circle = " extends ".join([*reversed(found), base])
            raise UserError(f"config: {key} is {shown(base)}; {circle} is circular")
        found.insert(0, base)
    return found


def groups_of(lines: Lines) -> Groups:
    """{group: its lines, in the order of the configuration}; UserError for a group that is called as a line is."""
    found: Groups = {}
    for name, line in lines.items():
        for group in line.get("groups", []):
            if group in lines:
                taken = f"groups names {shown(group)}, which is a method; give the group another name"
                raise UserError(f"config: methods.{name}.{taken}")
            found.setdefault(group, []).append(name)
    return found


def spelt_out(names: Iterable[str], key: str, lines: Lines, groups: Groups) -> list[str]:
    """The lines that a list of lines and groups names, each once; UserError, with its `key`, for an unknown name."""
    found: list[str] = []
    for name in names:
        if name not in lines and name not in groups:
            allowed = f"allowed are {sorted(lines)} and the groups {sorted(groups)}"
            raise UserError(f"config: scales.*.{key} names the unknown method {shown(name)}; {allowed}")
        found += groups.get(name, [name])
    return list(dict.fromkeys(found))


def by_line(settings: dict[str, Any], key: str, lines: Lines, groups: Groups) -> dict[str, list[Any]]:
    """{line: what the scale's mapping `key` says of it: of its groups first, then of itself}."""
    found: dict[str, list[Any]] = {}
    for name, value in sorted(settings.get(key, {}).items(), key=lambda item: item[0] in lines):
        for line in spelt_out([name], key, lines, groups):
            found.setdefault(line, []).append(value)
    return found


def scale_options(config: dict[str, Any], scale: str) -> dict[str, dict[str, Any]]:
    """{line: its own options at a scale}: what stands under the line's `at`, and over it the scale's `options`."""
    lines, scales = config["methods"], config["scales"]
    found: dict[str, dict[str, Any]] = {}
    for name, line in lines.items():
        for other in line.get("at", {}):
            if other not in scales:
                unknown = f"at names the unknown scale {shown(other)}; allowed are {sorted(scales)}"
                raise UserError(f"config: methods.{name}.{unknown}")
        if scale in line.get("at", {}):
            found[name] = line["at"][scale]
    for name, parts in by_line(scales[scale], "options", lines, groups_of(lines)).items():
        for options in parts:
            found[name] = found.get(name, {}) | options
    return found


def resolve(config: dict[str, Any], for_scale: bool = True) -> dict[str, Any]:
    """The configuration with every line whole and the chosen scale's groups spelt out; it may be read again.

    `config` has the right form. Without `for_scale` lines have the options of `methods:` only. Raises UserError for a
    name that is none.
    """
    lines, name = config["methods"], config["scale"]
    options = scale_options(config, name) if for_scale else {}
    scales = config["scales"] | {name: _scale(config["scales"][name], lines)}
    return config | {"scales": scales, "methods": {line: _line(line, lines, options) for line in lines}}


def needed(resolved: dict[str, Any]) -> set[str]:
    """The lines in the grids of a resolved configuration's scale, and those that they name, directly or not."""
    lines, settings = resolved["methods"], resolved["scales"][resolved["scale"]]
    evidence = settings.get("evidence", {})
    waiting = [name for key in GRIDS for name in settings.get(key, [])]
    waiting += [name for key in GRIDS_OF_EVIDENCE for name in evidence.get(key, [])]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in lines and name not in found:
            found.add(name)
            waiting += [lines[name][key] for key in REFERENCES if lines[name].get(key)]
    return found


def _line(name: str, lines: Lines, of_scale: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One line with all that it takes over."""
    own = lines[name]
    found: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for link in chain(name, lines):
        found |= {key: value for key, value in lines[link].items() if key in INHERITED}
        options |= lines[link].get("options", {}) | of_scale.get(link, {})
    found |= {key: value for key, value in own.items() if key not in ("extends", "at", "options")}
    if "changes" in own and "variant_of" not in own and base_of(own):
        found["variant_of"] = base_of(own)
    return found | ({"options": options} if options else {})


def _scale(settings: dict[str, Any], lines: Lines) -> dict[str, Any]:
    """One scale with lines in place of groups, and what it says of a line said of those that extend it, too."""
    groups = groups_of(lines)
    found = {key: value for key, value in settings.items() if key != "options"}
    for key in GRIDS:
        if key in settings:
            found[key] = spelt_out(settings[key], key, lines, groups)
    if "evidence" in settings:
        evidence = settings["evidence"]
        listed = [key for key in GRIDS_OF_EVIDENCE if key in evidence]
        found["evidence"] = evidence | {
            key: spelt_out(evidence[key], f"evidence.{key}", lines, groups) for key in listed
        }
    for key in ("gpus", "only_models"):
        if key in settings:
            found[key] = _inherited(key, by_line(settings, key, lines, groups), lines)
    return found


def _inherited(key: str, said: dict[str, list[Any]], lines: Lines) -> dict[str, Any]:
    """{line: what the scale says of it, or else of the nearest line that it extends, unless a line after that one says
    it itself}."""
    found: dict[str, Any] = {}
    for name in lines:
        for link in chain(name, lines):
            if key in lines[link]:
                found.pop(name, None)
            if link in said:
                found[name] = said[link][-1]
    return found
