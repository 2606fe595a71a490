"""Read and check the configuration and lay out the grid of cells. No heavy imports: every dry run pays for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from leap_repro.budget import parse_sparsity
from leap_repro.errors import UserError
from leap_repro.options import check_finite, option_errors
from leap_repro.patterns import TWO_FOUR, UNSTRUCTURED, parse_pattern

Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int),
)
"""JSON Schema counts 1.0 as an integer; a folder, a seed and range() do not."""

METHOD_TOKENS: dict[str, str | None] = {
    "dense": None,
    "magnitude": None,
    "wanda": "calibration",
    "sparsegpt": "calibration",
    "thanos": "calibration",
    "admm": "calibration",
    "optima": "calibration",
    "leap": "mask_training",
    "maskllm": "mask_training",
    "patch": "mask_training",
}
"""Which token shard each module under `leap_repro.prune` reads; a module outside this table is an unknown method."""

TABLES = {"main", "published", "time", "variants"}
"""Names of tables, beside which each model has a table of its name."""

RECONSTRUCTIONS = {"optima"}
"""The modules that complete the masks of another method, their `selector`."""


@dataclass(frozen=True)
class Method:
    """One line of `methods:`, with the scale's own options merged in; `selector`: whose masks it reconstructs."""

    name: str
    label: str
    module: str
    options: dict[str, Any]
    warm_start: str | None
    pattern_start: str | None
    hardening: str
    sparsities: tuple[str, ...]
    has_own_sparsities: bool
    variant_of: str | None
    changes: str
    selector: Method | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules under `leap_repro.prune` whose code makes a cell of this method."""
        return (self.module, self.selector.module) if self.selector else (self.module,)

    @property
    def description(self) -> dict[str, Any]:
        """Module, options and selector: what a job is told to run."""
        chosen = {"selector": self.selector.description} if self.selector else {}
        return {"module": self.module, "options": self.options} | chosen

    @property
    def tokens(self) -> str | None:
        return METHOD_TOKENS[self.module]


@dataclass(frozen=True, order=True)
class Cell:
    """One experiment. The sparsity is a decimal string, so that paths and budgets agree to the weight."""

    model: str
    method: str
    sparsity: str
    seed: int

    @property
    def path(self) -> str:
        return f"{self.model}/{self.method}/{self.sparsity}/{self.seed}"


class Named(dict):
    """A mapping that answers a missing key with those that it has, as for a target of an unknown model or method."""

    def __init__(self, kind: str, entries: dict[str, Any]) -> None:
        super().__init__(entries)
        self.kind = kind

    def __missing__(self, name: str) -> None:
        raise UserError(f"the configuration has no {self.kind} {name!r}; it has {sorted(self)}")


@dataclass(frozen=True)
class Study:
    """The chosen scale of a checked configuration."""

    scale: str
    settings: dict[str, Any]
    methods: dict[str, Method]

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        return self.settings["models"]

    def grid_methods(self, extended: bool = False) -> list[str]:
        """The methods of the default grid; `extended` adds the variants and as-released switches."""
        return self.settings["methods"] + (self.settings.get("extended", []) if extended else [])

    def cells(self, model: str | None = None, extended: bool = False) -> list[Cell]:
        """Every cell of the default or the extended grid, or of one model, in the order in which tables show them."""
        only = self.settings.get("only_models", {})
        return [
            Cell(name, method, sparsity, seed)
            for name in ([model] if model else self.models)
            for method in self.grid_methods(extended)
            if name in only.get(method, self.models)
            for sparsity in self.methods[method].sparsities
            for seed in self.settings["seeds"]
        ]


def check(config: dict[str, Any], schema: Path) -> None:
    """UserError with one sentence (key, value, what is allowed) for the first thing that is wrong."""
    validator = Validator(yaml.safe_load(schema.read_text(encoding="utf-8")))
    error = jsonschema.exceptions.best_match(validator.iter_errors(config))
    if error is not None:
        raise UserError(_sentence(error))


def _sentence(error: jsonschema.ValidationError) -> str:
    key = ".".join(str(part) for part in error.absolute_path) or "the configuration"
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(known), key=str)
        return f"config: {key} has the unknown key {unknown[0]!r}; allowed are {known}"
    if error.validator == "required":
        missing = sorted(set(error.validator_value) - set(error.instance))
        return f"config: {key} lacks the key {missing[0]!r}"
    if error.validator == "enum":
        return f"config: {key} is {error.instance!r}; allowed are {error.validator_value}"
    if error.validator == "type":
        return f"config: {key} is {error.instance!r}; it must be of type {error.validator_value}"
    allowed = error.schema.get("description", error.message)
    return f"config: {key} is {json.dumps(error.instance, default=str)}; {allowed}"


def read_study(config: dict[str, Any], schema: Path) -> Study:
    """Check `config` and return its chosen scale; UserError for anything the schema cannot say."""
    check(config, schema)
    check_finite(config)
    scale = config["scale"]
    if scale not in config["scales"]:
        raise UserError(f"config: scale is {scale!r}; allowed are {sorted(config['scales'])}")
    settings = config["scales"][scale]
    for error in _name_errors(settings, set(config["methods"])):
        raise UserError(f"config: {error}")
    merged = _with_scale_options(config["methods"], settings)
    check(config | {"methods": merged}, schema)
    for error in _selector_errors(merged):
        raise UserError(f"config: {error}")
    methods = {name: _method(name, line, settings) for name, line in merged.items()}
    methods = {name: replace(m, selector=methods.get(merged[name].get("selector"))) for name, m in methods.items()}
    for error in _grid_errors(settings, methods):
        raise UserError(f"config: {error}")
    return Study(scale, settings | {"models": Named("model", settings["models"])}, Named("method", methods))


def _with_scale_options(lines: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The lines of `methods:` with the scale's own options laid over theirs."""
    own = settings.get("options", {})
    return {name: line | {"options": line.get("options", {}) | own.get(name, {})} for name, line in lines.items()}


def _method(name: str, line: dict[str, Any], settings: dict[str, Any]) -> Method:
    sparsities = line.get("sparsities", settings["sparsities"])
    return Method(
        name=name,
        label=line.get("label", name),
        module=line["module"],
        options=line["options"],
        warm_start=line.get("warm_start"),
        pattern_start=line.get("pattern_start"),
        hardening=line.get("hardening", "exact"),
        sparsities=tuple(_decimal(value) for value in sparsities),
        has_own_sparsities="sparsities" in line,
        variant_of=line.get("variant_of"),
        changes=line.get("changes", ""),
    )


def _decimal(value: float) -> str:
    """The sparsity as the decimal that paths and budgets use; UserError outside [0, 1)."""
    parse_sparsity(value)
    return format(abs(Decimal(str(value)).normalize()), "f")  # YAML has a -0.0


def _name_errors(settings: dict[str, Any], known: set[str]) -> Iterator[str]:
    for name in TABLES & set(settings["models"]):
        yield f"scales.*.models names a model {name!r}; {sorted(TABLES)} are the names of other tables"
    for key in ("methods", "extended", "options", "only_models"):
        for name in settings.get(key, []):
            if name not in known:
                yield f"scales.*.{key} names the unknown method {name!r}; allowed are {sorted(known)}"
    for method, models in settings.get("only_models", {}).items():
        for name in set(models) - set(settings["models"]):
            known_models = sorted(settings["models"])
            yield f"scales.*.only_models.{method} names the unknown model {name!r}; allowed are {known_models}"
    for name in set(settings["methods"]) & set(settings.get("extended", [])):
        yield f"scales.*.extended names {name!r}, which is in methods already; a method belongs to one of the two"


def _selector_errors(lines: dict[str, Any]) -> Iterator[str]:
    """A reconstruction names a one-shot method that prunes; no other method names one, so there are no chains."""
    selectors = {name for name, line in lines.items() if _selects(line["module"])}
    for name, line in lines.items():
        selector, needed = line.get("selector"), line["module"] in RECONSTRUCTIONS
        if needed and selector not in selectors:
            yield f"methods.{name}.selector is {selector!r}; it must be a one-shot method: {sorted(selectors)}"
        if selector is not None and not needed:
            yield f"methods.{name}.selector is {selector!r}; only the modules {sorted(RECONSTRUCTIONS)} have a selector"


def _selects(module: str) -> bool:
    return module not in {"dense", *RECONSTRUCTIONS} and METHOD_TOKENS[module] != "mask_training"


def _grid_errors(settings: dict[str, Any], methods: dict[str, Method]) -> Iterator[str]:
    for name, method in methods.items():
        yield from _pattern_errors(name, method)
        yield from option_errors(name, method)
        yield from _two_four_errors(name, method, methods)
        if method.selector and not _covers(method.selector, method):
            yield f"methods.{name}.selector is {method.selector.name!r}, which does not run at every sparsity of {name}"
        start = methods.get(method.warm_start) if method.warm_start else None
        if method.warm_start and (start is None or start.tokens == "mask_training"):
            yield f"methods.{name}.warm_start is {method.warm_start!r}; it must be a one-shot method"
        if start and not _covers(start, method):
            yield f"methods.{name}.warm_start is {method.warm_start!r}, which does not run at every sparsity of {name}"
        if method.variant_of and method.variant_of not in methods:
            yield f"methods.{name}.variant_of is {method.variant_of!r}; it must be one of {sorted(methods)}"
        if method.tokens == "mask_training" and name in settings["methods"] + settings.get("extended", []):
            for part in (settings["data"], settings):
                if "mask_training" not in part:
                    yield f"methods.{name} is learned and needs mask_training under the scale and under its data"


def _covers(start: Method, method: Method) -> bool:
    """Whether `start` can run at every sparsity of `method`: anywhere, but for one with sparsities of its own."""
    return not start.has_own_sparsities or set(method.sparsities) <= set(start.sparsities)


def _two_four_errors(name: str, method: Method, methods: dict[str, Method]) -> Iterator[str]:
    """MaskLLM drops half of the weights, PATCH at most half; PATCH lies over another method's 2:4 mask."""
    dropped = {parse_sparsity(sparsity) for sparsity in method.sparsities}
    if method.module == "maskllm" and dropped != {TWO_FOUR.sparsity}:
        yield f"methods.{name}.sparsities is {list(map(float, method.sparsities))}; 2:4 allows only [0.5]"
    if method.module == "patch" and max(dropped) > TWO_FOUR.sparsity:
        yield f"methods.{name}.sparsities is {list(map(float, method.sparsities))}; 2:4 tiles drop at most 0.5"
    start = method.pattern_start
    if start and method.module != "patch":
        yield f"methods.{name}.pattern_start is {start!r}; only the module patch has one"
    if method.module == "patch" and start not in _two_four(methods):
        yield f"methods.{name}.pattern_start is {start!r}; it must be a one-shot 2:4 method: {_two_four(methods)}"


def _two_four(methods: dict[str, Method]) -> list[str]:
    return sorted(name for name, method in methods.items() if method.options.get("pattern") == str(TWO_FOUR))


def _pattern_errors(name: str, method: Method) -> Iterator[str]:
    """An N:M mask has one sparsity; blocks of columns must hold whole groups."""
    pattern = parse_pattern(method.options.get("pattern", UNSTRUCTURED))
    if pattern is None:
        return
    if {parse_sparsity(sparsity) for sparsity in method.sparsities} != {pattern.sparsity}:
        only = f"its sparsities must be [{float(pattern.sparsity):g}]"
        yield f"methods.{name}.options.pattern is {str(pattern)!r}: {only}, not {list(map(float, method.sparsities))}"
    block_size = method.options.get("block_size", pattern.group)
    if block_size % pattern.group:
        whole = f"a multiple of {pattern.group}, because its pattern is {str(pattern)!r}"
        yield f"methods.{name}.options.block_size is {block_size}; it must be {whole}"
