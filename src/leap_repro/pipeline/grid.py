"""The grid of cells of a configuration, and the checks of its keys against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from leap_repro.checked import check_values, checked, contradictions
from leap_repro.errors import UserError, shown
from leap_repro.models.sizes import Sizes, sizes_as_declared
from leap_repro.pipeline.config import Config, Line, Scale
from leap_repro.pipeline.cross_checks import (
    grid_errors,
    label_errors,
    name_errors,
    selector_errors,
    training_errors,
)
from leap_repro.pipeline.inheritance import needed, resolve, with_data
from leap_repro.pipeline.roles import role_on
from leap_repro.prune.declaration import Declaration
from leap_repro.prune.learned.automatic import chosen
from leap_repro.prune.learned.declaration import LoopOptions
from leap_repro.prune.methods import declaration

DEFAULT, EXTENDED, EVIDENCE = "", "extended", "evidence"
GRIDS = (DEFAULT, EXTENDED, EVIDENCE)
"""The grids of a scale: its methods; with variants, as-released switches and rivals; with seeds and what they show."""


@dataclass(frozen=True)
class Method:
    """One line of `methods:`, with the scale's own options merged in; `selector`: whose masks it reconstructs;
    `hardens`: whose logits it hardens by another rule, without a training of its own.

    `gpus` is how many processes train a cell together, each on its own; on how many a result was made does not make it
    another's.
    """

    name: str
    label: str
    module: str
    options: Any  # of its module's own class
    warm_start: str | None
    pattern_start: str | None
    parent: str | None
    budget_from: str | None
    text: str | None
    hardening: str
    sparsities: tuple[str, ...]
    has_own_sparsities: bool
    variant_of: str | None
    changes: str
    gpus: int = 1
    selector: Method | None = None
    hardens: str | None = None

    @property
    def declaration(self) -> Declaration:
        """What its module says of itself."""
        return declaration(self.module)

    @property
    def given(self) -> dict[str, Any]:
        """The options that the configuration sets; the others are at their defaults."""
        return self.options.model_dump(exclude_unset=True)

    @property
    def automatic(self) -> list[str]:
        """The options that are chosen for each model, by the memory of a GPU."""
        return getattr(self.options, "automatic", [])

    @property
    def is_scored_held_out(self) -> bool:
        """Whether its training is scored on held-out text on its way."""
        return not self.hardens and bool(getattr(self.options, "held_out_evaluations", 0))

    @property
    def starts(self) -> dict[str, str]:
        """{key: line} of the other lines whose hardened cells of the same sparsity it reads."""
        found = {"warm_start": self.warm_start, "parent": self.parent, "budget_from": self.budget_from}
        return {key: name for key, name in found.items() if name}

    @property
    def is_seeded(self) -> bool:
        """Whether anything is drawn for a cell: another seed would make another."""
        return bool(self.tokens or self.selector or self.starts)

    @property
    def training_sequences(self) -> int:
        """How many sequences of the mask-training text it is calibrated on; 0: none, as of a method without the
        option."""
        return getattr(self.options, "training_sequences", 0)

    @property
    def trained_sequences(self) -> int:
        """How many sequences its training reads, batch by batch; 0 for a method that does not train."""
        options = self.options
        return options.steps * options.batch_size if isinstance(options, LoopOptions) else 0

    @property
    def trains_weights(self) -> bool:
        """Whether its training moves the weights that stay, not masks alone."""
        return self.declaration.trains and self.declaration.moves_weights

    @property
    def modules(self) -> tuple[str, ...]:
        """The methods whose code makes a cell of this one."""
        return (self.module, self.selector.module) if self.selector else (self.module,)

    @property
    def training(self) -> dict[str, Any]:
        """What decides a cell but its hardening, all options included."""
        chosen = {"selector": self.selector.training} if self.selector else {}
        starts = self.starts | {"pattern_start": self.pattern_start}
        own = {"module": self.module, "options": self.options.model_dump(), "starts": starts, "text": self.text}
        return own | chosen

    @property
    def description(self) -> dict[str, Any]:
        """Module, options and selector: what a job is told to run."""
        chosen = {"selector": self.selector.description} if self.selector else {}
        return {"module": self.module, "options": self.given} | chosen

    @property
    def tokens(self) -> str | None:
        """The token shard that it reads, by its role."""
        role = self.declaration.tokens_of(self.options)
        return role and role_on(role, self.text)

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
        what = f"no {self.kind} {shown(name)}"
        raise UserError(f"the configuration has {what}; it has {sorted(self)}")


@dataclass(frozen=True)
class Study:
    """The chosen scale of a checked configuration; `models` and `data` are its sources as written, as jobs get them."""

    scale: str
    settings: Scale
    methods: dict[str, Method]
    models: dict[str, dict[str, Any]]
    data: dict[str, dict[str, Any]]

    def line(self, method: str, model: str) -> Method:
        """A line as it is for one model: with what is chosen by the memory of a GPU in place of `auto`.

        By what the configuration says of the model, so that its fetch changes nothing.
        """
        spec = self.models[model]
        return self.fitted(method, sizes_as_declared(spec) if spec.get("shape") else None)

    def fitted(self, method: str, sizes: Sizes | None) -> Method:
        """The same for a model of these sizes; of one whose sizes are not known (None), with the least memory."""
        line, shard, memory = self.methods[method], self.settings.mask_training, self.settings.gpu_memory
        if not line.automatic:
            return line
        assert shard is not None, "no study trains without it"
        assert memory is not None, "no study has auto without it"
        options = chosen(line.options, sizes, self.settings.dtype, shard.length, line.gpus, memory * 1e9)
        return replace(line, options=options)

    def grid_methods(self, grid: str = DEFAULT) -> list[str]:
        """The methods of one of GRIDS."""
        evidence = self.settings.evidence
        if grid == EVIDENCE:
            return self.settings.methods + (evidence.methods + evidence.once if evidence else [])
        return self.settings.methods + (self.settings.extended if grid == EXTENDED else [])

    def cells(self, model: str | None = None, grid: str = DEFAULT) -> list[Cell]:
        """Every cell of a grid, or those of one model, in the order in which tables show them."""
        only = self.settings.only_models
        return [
            Cell(name, method, sparsity, seed)
            for name in ([model] if model else self.models)
            for method in self.grid_methods(grid)
            if name in only.get(method, self.models)
            for sparsity, seeds in self._sizes(method, grid)
            for seed in seeds[: None if self.methods[method].is_seeded else 1]
        ]

    def pruned(self, cell: Cell) -> Cell:
        """The cell whose pruning is hardened for this one: its own, but for a line that hardens another's logits."""
        return replace(cell, method=self.methods[cell.method].hardens or cell.method)

    def pruned_cells(self, model: str | None = None, grid: str = DEFAULT) -> list[Cell]:
        """The cells that are pruned for those of a grid, each once."""
        return list(dict.fromkeys(map(self.pruned, self.cells(model, grid))))

    def _sizes(self, method: str, grid: str) -> Iterator[tuple[str, list[int]]]:
        """(sparsity, its seeds) of a method in a grid."""
        line, evidence = self.methods[method], self.settings.evidence
        if grid != EVIDENCE or evidence is None:
            yield from ((sparsity, self.settings.seeds) for sparsity in line.sparsities)
            return
        seeds = evidence.seeds[:1] if method in evidence.once else evidence.seeds
        curve = [] if line.has_own_sparsities or method not in self.settings.methods else evidence.curve
        every = {sparsity: seeds for sparsity in line.sparsities}
        yield from sorted(({_decimal(value): seeds[:1] for value in curve} | every).items(), key=lambda s: float(s[0]))

    def seeds(self, grid: str = DEFAULT) -> list[int]:
        """The seeds that any cell of a grid has."""
        evidence = self.settings.evidence if grid == EVIDENCE else None
        return self.settings.seeds if evidence is None else evidence.seeds

    @property
    def grids(self) -> list[str]:
        """Those of GRIDS that the scale has."""
        return [grid for grid in GRIDS if grid != EVIDENCE or self.settings.evidence]


def read_study(config: dict[str, Any]) -> Study:
    """Check `config` and return its chosen scale; UserError with one sentence for the first thing that is wrong."""
    config = with_data(config)
    check_values(Config, config, "config")
    if config["scale"] not in config["scales"]:
        raise UserError(f"config: scale is {shown(config['scale'])}; allowed are {sorted(config['scales'])}")
    check_values(Config, resolve(config, for_scale=False), "config")  # those that the scale's options replace, too
    whole = checked(Config, _without_clashes(resolve(config), resolve(config, for_scale=False)), "config")
    settings = whole.scales[whole.scale]
    _refuse(name_errors(settings))
    _refuse(selector_errors(whole.methods))
    methods = {name: _method(name, line, settings) for name, line in whole.methods.items()}
    methods = {
        name: replace(m, selector=methods.get(whole.methods[name].selector or "")) for name, m in methods.items()
    }
    _refuse(grid_errors(settings, methods))
    _refuse(label_errors(settings, methods))
    _refuse(training_errors(settings, methods))
    sources = settings.model_dump(include={"models", "data"}, exclude_unset=True, exclude_none=True)
    models, data = Named("model", sources["models"]), Named("data for", _by_role(sources["data"]))
    return Study(whole.scale, settings, Named("method", methods), models, data)


def _by_role(data: dict[str, Any]) -> dict[str, Any]:
    """{role: its source}, with those of other texts."""
    texts = data.pop("texts", {})
    return data | {role_on(role, name): source for name, own in texts.items() for role, source in own.items()}


def _without_clashes(resolved: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """A resolved configuration without the lines that no grid of the scale needs and that are right by themselves
    (`plain`), but not with the options that the scale has for a line that they extend."""
    clashing = _clashing(resolved) - _clashing(plain) - needed(resolved)
    return resolved | {"methods": {name: line for name, line in resolved["methods"].items() if name not in clashing}}


def _clashing(resolved: dict[str, Any]) -> set[str]:
    """The lines whose options contradict one another."""
    return {str(place[1]) for place in contradictions(Config, resolved) if place[0] == "methods"}


def _refuse(errors: Iterator[str]) -> None:
    for error in errors:
        raise UserError(f"config: {error}")


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
        budget_from=line.budget_from,
        text=line.text,
        hardening=line.hardening,
        sparsities=tuple(_decimal(value) for value in sparsities),
        has_own_sparsities=line.sparsities is not None,
        variant_of=line.variant_of,
        changes=line.changes or "",
        gpus=settings.gpus.get(name, line.gpus),
        hardens=line.hardens,
    )


def _decimal(value: float) -> str:
    """The sparsity as the decimal that paths and budgets use."""
    return format(abs(Decimal(str(value)).normalize()), "f")  # YAML has a -0.0
