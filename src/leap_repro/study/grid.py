"""The grid of cells that a configuration asks for, and what its keys must be to one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from leap_repro.checked import check_values, checked
from leap_repro.errors import UserError
from leap_repro.prune.declaration import Declaration, Options, Tokens, refuse_sparsity
from leap_repro.prune.methods import declaration, names
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.sparsity.patterns import TWO_FOUR
from leap_repro.study.config import Config, Line, Scale

SHARDS = {
    "calibration": ("calibration", "windows"),
    "mask_training": ("mask_training", "packed"),
    "mask_training_grouped": ("mask_training", "grouped"),
}
"""Token shards by role: the name of their text and sizes, and how they are cut: a sample of windows, or all packed."""
TRAINING_SHARDS = ("mask_training", "mask_training_grouped")
TABLES = {"main", "published", "time", "variants"}
"""Names of tables, beside which each model has a table of its name."""


@dataclass(frozen=True)
class Method:
    """One line of `methods:`, with the scale's own options merged in; `selector`: whose masks it reconstructs.

    `gpus` is how many processes train a cell together, each on its own; on how many a result was made does not make it
    another's.
    """

    name: str
    label: str
    module: str
    options: Options
    warm_start: str | None
    pattern_start: str | None
    parent: str | None
    hardening: str
    sparsities: tuple[str, ...]
    has_own_sparsities: bool
    variant_of: str | None
    changes: str
    gpus: int = 1
    selector: Method | None = None

    @property
    def declaration(self) -> Declaration:
        """What its module says of itself."""
        return declaration(self.module)

    @property
    def given(self) -> dict[str, Any]:
        """The options that the configuration sets; the others are at their defaults."""
        return self.options.model_dump(exclude_unset=True)

    @property
    def modules(self) -> tuple[str, ...]:
        """The methods whose code makes a cell of this one."""
        return (self.module, self.selector.module) if self.selector else (self.module,)

    @property
    def description(self) -> dict[str, Any]:
        """Module, options and selector: what a job is told to run."""
        chosen = {"selector": self.selector.description} if self.selector else {}
        return {"module": self.module, "options": self.given} | chosen

    @property
    def tokens(self) -> Tokens:
        return self.declaration.tokens_of(self.options)

    def nodes(self, gpus_per_node: int | None) -> int:
        """On how many nodes of a cluster it trains."""
        return -(-self.gpus // (gpus_per_node or self.gpus))


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
    """The chosen scale of a checked configuration; `models` and `data` are its sources as written, as jobs get them."""

    scale: str
    settings: Scale
    methods: dict[str, Method]
    models: dict[str, dict[str, Any]]
    data: dict[str, dict[str, Any]]

    def grid_methods(self, extended: bool = False) -> list[str]:
        """The methods of the default grid; `extended` adds the variants and as-released switches."""
        return self.settings.methods + (self.settings.extended if extended else [])

    def cells(self, model: str | None = None, extended: bool = False) -> list[Cell]:
        """Every cell of the default or the extended grid, or of one model, in the order in which tables show them."""
        only = self.settings.only_models
        return [
            Cell(name, method, sparsity, seed)
            for name in ([model] if model else self.models)
            for method in self.grid_methods(extended)
            if name in only.get(method, self.models)
            for sparsity in self.methods[method].sparsities
            for seed in self.settings.seeds
        ]


def read_study(config: dict[str, Any]) -> Study:
    """Check `config` and return its chosen scale; UserError with one sentence for the first thing that is wrong."""
    check_values(Config, config, "config")  # those that the scale's options replace, too
    whole = checked(Config, _with_scale_options(config), "config")
    if whole.scale not in whole.scales:
        raise UserError(f"config: scale is {whole.scale!r}; allowed are {sorted(whole.scales)}")
    settings = whole.scales[whole.scale]
    _refuse(_name_errors(settings, set(whole.methods)))
    _refuse(_selector_errors(whole.methods))
    methods = {name: _method(name, line, settings) for name, line in whole.methods.items()}
    methods = {name: replace(m, selector=methods.get(whole.methods[name].selector)) for name, m in methods.items()}
    _refuse(_grid_errors(settings, methods))
    sources = settings.model_dump(include={"models", "data"}, exclude_unset=True, exclude_none=True)
    return Study(whole.scale, settings, Named("method", methods), Named("model", sources["models"]), sources["data"])


def _refuse(errors: Iterator[str]) -> None:
    for error in errors:
        raise UserError(f"config: {error}")


def _with_scale_options(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the scale's own options laid over those of `methods:`, as far as it has the right form."""
    try:
        own = config["scales"][config["scale"]].get("options", {})
        lines = {
            name: line | {"options": line.get("options", {}) | own[name]} if name in own else line
            for name, line in config["methods"].items()
        }
    except (KeyError, TypeError, AttributeError):
        return config
    return config | {"methods": lines}


def _method(name: str, line: Line, settings: Scale) -> Method:
    sparsities = settings.sparsities if line.sparsities is None else line.sparsities
    return Method(
        name=name,
        label=line.label or name,
        module=line.module,
        options=line.options,
        warm_start=line.warm_start,
        pattern_start=line.pattern_start,
        parent=line.parent,
        hardening=line.hardening,
        sparsities=tuple(_decimal(value) for value in sparsities),
        has_own_sparsities=line.sparsities is not None,
        variant_of=line.variant_of,
        changes=line.changes or "",
        gpus=settings.gpus.get(name, line.gpus),
    )


def _decimal(value: float) -> str:
    """The sparsity as the decimal that paths and budgets use."""
    return format(abs(Decimal(str(value)).normalize()), "f")  # YAML has a -0.0


def _name_errors(settings: Scale, known: set[str]) -> Iterator[str]:
    for name in TABLES & set(settings.models):
        yield f"scales.*.models names a model {name!r}; {sorted(TABLES)} are the names of other tables"
    for key in ("methods", "extended", "options", "gpus", "only_models"):
        for name in getattr(settings, key):
            if name not in known:
                yield f"scales.*.{key} names the unknown method {name!r}; allowed are {sorted(known)}"
    for method, models in settings.only_models.items():
        for name in set(models) - set(settings.models):
            known_models = sorted(settings.models)
            yield f"scales.*.only_models.{method} names the unknown model {name!r}; allowed are {known_models}"
    for name in set(settings.methods) & set(settings.extended):
        yield f"scales.*.extended names {name!r}, which is in methods already; a method belongs to one of the two"


def _selector_errors(lines: dict[str, Line]) -> Iterator[str]:
    """A reconstruction names a one-shot method that prunes; no other method names one, so there are no chains."""
    selectors = sorted(name for name, line in lines.items() if declaration(line.module).selects)
    for name, line in lines.items():
        if "selector" in declaration(line.module).starts and line.selector not in selectors:
            yield f"methods.{name}.selector is {line.selector!r}; it must be a one-shot method: {selectors}"
        if "selector" not in declaration(line.module).starts and line.selector is not None:
            takers = _modules("starts", "selector")
            yield f"methods.{name}.selector is {line.selector!r}; only the modules {takers} have one"


def _grid_errors(settings: Scale, methods: dict[str, Method]) -> Iterator[str]:
    for name, method in methods.items():
        subject = f"methods.{name}.sparsities is {[float(value) for value in method.sparsities]}"
        drops = [parse_sparsity(value) for value in method.sparsities]
        try:
            refuse_sparsity(drops, method.options, subject, f"methods.{name}.options")
        except UserError as error:
            yield str(error)
        yield from _start_errors(name, method, methods)
        if method.gpus > 1:
            yield from _gpu_errors(method, settings)
        if method.hardening not in method.declaration.hardenings:
            chosen = _modules("hardenings", method.hardening)
            yield f"methods.{name}.hardening is {method.hardening!r}; only the modules {chosen} allow it"
        if method.variant_of == name:
            yield f"methods.{name}.variant_of is {name!r}; it must be another method"
        if method.variant_of and method.variant_of not in methods:
            yield f"methods.{name}.variant_of is {method.variant_of!r}; it must be one of {sorted(methods)}"
        stream = settings.mask_training is not None and settings.data.mask_training is not None
        if method.declaration.trains and not stream and name in settings.methods + settings.extended:
            yield f"methods.{name} is learned and needs mask_training under the scale and under its data"


def _gpu_errors(method: Method, settings: Scale) -> Iterator[str]:
    """Only trainings are shared out, evenly over nodes and in whole micro-batches."""
    place = f"scales.*.gpus.{method.name}" if method.name in settings.gpus else f"methods.{method.name}.gpus"
    asked, per_node = method.gpus, settings.cluster.gpus_per_node
    if not method.declaration.is_shared:
        shared = [name for name in names() if declaration(name).is_shared]
        yield f"{place} is {asked}; only the modules {shared} train on several GPUs"
        return
    if per_node and asked > per_node and asked % per_node:
        yield f"{place} is {asked}; it must be a multiple of scales.*.cluster.gpus_per_node ({per_node}), or no more"
    batches = method.options.batch_size // method.options.micro_batch_size
    if batches % asked and method.name in settings.methods + settings.extended:
        yield f"{place} is {asked}; it must divide the {batches} micro-batches of a step of {method.name}"


def _start_errors(name: str, method: Method, methods: dict[str, Method]) -> Iterator[str]:
    """The other lines that a method builds on: whether it may, whether they are of the right kind, whether they run."""
    starts = {"warm_start": method.warm_start, "pattern_start": method.pattern_start, "parent": method.parent}
    for key, start in starts.items():
        if start is not None and key not in method.declaration.starts:
            yield f"methods.{name}.{key} is {start!r}; only the modules {_modules('starts', key)} have one"
    if method.warm_start and not _is_one_shot(methods.get(method.warm_start)):
        yield f"methods.{name}.warm_start is {method.warm_start!r}; it must be a one-shot method"
    two_four = sorted(other.name for other in methods.values() if other.options.facts["pattern"] == str(TWO_FOUR))
    if "pattern_start" in method.declaration.starts and method.pattern_start not in two_four:
        yield f"methods.{name}.pattern_start is {method.pattern_start!r}; it must be a 2:4 method: {two_four}"
    parents = sorted(other.name for other in methods.values() if "parent" not in other.declaration.starts)
    if "parent" in method.declaration.starts and method.parent not in parents:
        yield f"methods.{name}.parent is {method.parent!r}; it must be a method that has no parent itself: {parents}"
    found = {key: methods.get(start or "") for key, start in starts.items() if key != "pattern_start"}
    for key, start in (found | {"selector": method.selector}).items():
        if start and start.has_own_sparsities and not set(method.sparsities) <= set(start.sparsities):
            yield f"methods.{name}.{key} is {start.name!r}, which does not run at every sparsity of {name}"


def _modules(field: str, value: str) -> list[str]:
    """The methods whose declaration has `value` among its `field`, be there a line of them or not."""
    return [name for name in names() if value in getattr(declaration(name), field)]


def _is_one_shot(method: Method | None) -> bool:
    return method is not None and not method.declaration.trains
