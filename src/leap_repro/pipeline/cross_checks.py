"""What keys of a configuration must be to one another: each function yields a sentence for everything that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

from leap_repro.errors import UserError, shown
from leap_repro.pipeline.config import Line, Scale
from leap_repro.prune.declaration import refuse_sparsity
from leap_repro.prune.methods import declaration, declarations
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.sparsity.patterns import TWO_FOUR, UNSTRUCTURED

if TYPE_CHECKING:
    from leap_repro.pipeline.grid import Method

TABLES_OF_A_STUDY = ("main", "time", "published")
TABLES_OF_EVIDENCE = {
    "differences": "differences",
    "crossings": "crossings",
    "annealing": "crossings",
    "few-steps": "crossings",
    "fact-free": "fact_free",
    "correlations": "correlations",
    "gap": "correlations",
    "overlap": "overlap",
    "claims": "claims",
}
"""{table: the module under report that writes it}"""
TABLES = {*TABLES_OF_A_STUDY, *TABLES_OF_EVIDENCE, "variants"}
"""Names of tables, beside which each model has a table of its name."""
SPREAD_OUT = {"pattern": UNSTRUCTURED, "budget_scope": "global"}
"""What a mask promises whose matrices may keep different shares of one budget."""


def name_errors(settings: Scale) -> Iterator[str]:
    """Models that a scale names: there is such a one; models and methods: no name stands twice."""
    for name in TABLES & set(settings.models):
        yield f"scales.*.models names a model {shown(name)}; tables are named {sorted(TABLES)}, so a model may not be"
    evidence = settings.evidence
    for method, models in settings.only_models.items():
        for name in set(models) - set(settings.models):
            known_models = sorted(settings.models)
            yield f"scales.*.only_models.{method} names the unknown model {shown(name)}; allowed are {known_models}"
    for name in set(settings.methods) & set(settings.extended):
        yield f"scales.*.extended names {shown(name)}, which is in methods already; a method belongs to one of the two"
    for key in ("methods", "once") if evidence else ():
        assert evidence is not None
        others = set(settings.methods) | (set(evidence.methods) if key == "once" else set())
        for name in others & set(getattr(evidence, key)):
            yield f"scales.*.evidence.{key} names {shown(name)}, which the grid evidence has already"


def selector_errors(lines: dict[str, Line]) -> Iterator[str]:
    """A reconstruction names a one-shot method that prunes, or a parent; no other method names one, so there are no
    chains."""
    one_shot = (name for name, line in lines.items() if declaration(line.module).selects and not line.budget_from)
    selectors = sorted(one_shot)
    for name, line in lines.items():
        takes = "selector" in declaration(line.module).starts
        if takes and line.parent is not None and line.selector is not None:
            yield f"methods.{name}.selector is {shown(line.selector)}; leave it out, or the parent {shown(line.parent)}"
        elif takes and line.parent is None and line.selector not in selectors:
            yield f"methods.{name}.selector is {shown(line.selector)}; it must be a one-shot method: {selectors}"
        if "selector" not in declaration(line.module).starts and line.selector is not None:
            takers = _modules("starts", "selector")
            yield f"methods.{name}.selector is {shown(line.selector)}; only the modules {takers} have it"


def grid_errors(settings: Scale, methods: dict[str, Method]) -> Iterator[str]:
    """Requests of a method that it, or the scale, cannot meet."""
    for name, method in methods.items():
        yield from _own_errors(name, method)
    for name, method in methods.items():
        yield from _start_errors(name, method, methods)
        if method.hardens:
            yield from _hardens_errors(name, method, methods)
        if method.gpus > 1:
            yield from _gpu_errors(method, settings)
        if method.variant_of == name:
            yield f"methods.{name}.variant_of is {shown(name)}; it must be another method"
        if method.variant_of and method.variant_of not in methods:
            yield f"methods.{name}.variant_of is {shown(method.variant_of)}; it must be one of {sorted(methods)}"
        if method.automatic and settings.gpu_memory is None:
            asked = f"methods.{name}.options.{method.automatic[0]} is auto"
            yield f"{asked}; this needs gpu_memory, in GB, under the scale"
        stream = settings.mask_training is not None and settings.data.mask_training is not None
        if name not in _asked(settings):
            continue
        if method.declaration.trains and not stream:
            yield f"methods.{name} is learned and needs mask_training under the scale and under its data"
        yield from _sample_errors(method, settings)
        for line in (method, *(methods[start] for start in method.starts.values())):
            yield from _text_errors(line, settings)
        if method.is_scored_held_out and settings.held_out is None:
            asked = f"methods.{name}.options.held_out_evaluations is {method.options.held_out_evaluations}"
            yield f"{asked}; it needs held_out under the scale"


def _text_errors(method: Method, settings: Scale) -> Iterator[str]:
    """Whether the scale has the text that a method names, and all parts that the method reads."""
    texts, place = settings.data.texts, f"methods.{method.name}.text is {shown(method.text)}"
    if method.text and not method.tokens:
        yield f"{place}; the method reads no text, so leave it out"
    elif method.text and method.text not in texts:
        yield f"{place}; it must be one of the scale's data.texts: {sorted(texts)}"
    elif method.text and method.declaration.trains and texts[method.text].mask_training is None:
        yield f"{place}, which has no mask_training, but the method trains on it"


def _sample_errors(method: Method, settings: Scale) -> Iterator[str]:
    """Whether the mask-training text has the sequences that a method is to be calibrated on."""
    asked = method.training_sequences
    place = f"methods.{method.name}.options.training_sequences is {asked}"
    if asked and (settings.mask_training is None or settings.data.mask_training is None):
        yield f"{place}; it needs mask_training under the scale and under its data"
    elif settings.mask_training and asked > settings.mask_training.sequences:
        most = settings.mask_training.sequences
        yield f"{place}; it may be at most {most}, the sequences of the scale's mask_training"


def _own_errors(name: str, method: Method) -> Iterator[str]:
    """Requests of a method that its module does not support."""
    subject = f"methods.{name}.sparsities is {[float(value) for value in method.sparsities]}"
    drops = [parse_sparsity(value) for value in method.sparsities]
    try:
        refuse_sparsity(drops, method.options, subject, f"methods.{name}.options")
    except UserError as error:
        yield str(error)
    for key in ("warm_start", "pattern_start", "parent", "budget_from"):
        start = getattr(method, key)
        if start is not None and key not in method.declaration.starts:
            yield f"methods.{name}.{key} is {shown(start)}; only the modules {_modules('starts', key)} have it"
    if method.hardening not in method.declaration.hardenings:
        chosen = _modules("hardenings", method.hardening)
        yield f"methods.{name}.hardening is {method.hardening!r}; only the modules {chosen} allow it"


def label_errors(settings: Scale, methods: dict[str, Method]) -> Iterator[str]:
    """Tables and figures identify the methods of a grid that run at one sparsity by their labels."""
    for further in _further(settings):
        for line, other in combinations(map(methods.__getitem__, settings.methods + further), 2):
            same = line.label.split() == other.label.split()
            if same and _meet(line, other, settings):
                why = f"{line.name} has it already in the same grid, and tables identify methods by it"
                yield f"methods.{other.name}.label is {shown(other.label)}; {why}"


def _further(settings: Scale) -> list[list[str]]:
    """What each of the larger grids has besides the scale's own methods."""
    evidence = settings.evidence
    return [settings.extended, evidence.methods + evidence.once if evidence else []]


def training_errors(settings: Scale, methods: dict[str, Method]) -> Iterator[str]:
    """No two methods of one grid train the same."""
    for listed in (settings.methods + further for further in _further(settings)):
        trained = [methods[name] for name in listed if methods[name].declaration.trains and not methods[name].hardens]
        for line, other in combinations(trained, 2):
            if line.training == other.training and _meet(line, other, settings):
                logits = f", or set `hardens: {line.name}`" if line.declaration.leaves_logits else ""
                same = f"trains the same as {line.name}: module, options and starts are the same"
                yield f"methods.{other.name} {same}; leave one of them out of the grid{logits}"


def _meet(line: Method, other: Method, settings: Scale) -> bool:
    """Whether two methods run on one model at one sparsity."""
    models, others = (set(settings.only_models.get(each.name, settings.models)) for each in (line, other))
    return bool(models & others) and bool(set(line.sparsities) & set(other.sparsities))


def _hardens_errors(name: str, method: Method, methods: dict[str, Method]) -> Iterator[str]:
    """A line that hardens another's logits: that one leaves some, of the same training, and hardens them otherwise."""
    other, place = methods.get(method.hardens or ""), f"methods.{name}.hardens is {shown(method.hardens)}"
    trained = sorted(each.name for each in methods.values() if each.declaration.leaves_logits and not each.hardens)
    if other is None or other.name not in trained:
        yield f"{place}; it must be a method whose training writes logits: {trained}"
    elif method.training != other.training:
        parts = [key for key, value in method.training.items() if value != other.training[key]]
        yield f"{place}, which is trained differently; leave out the differences: {parts}"
    elif method.hardening == other.hardening:
        yield f"{place}, whose logits are hardened by the rule {other.hardening!r} already; give it another `hardening`"
    elif other.has_own_sparsities and not set(method.sparsities) <= set(other.sparsities):
        yield f"{place}, which does not run at every sparsity of {name}"


def _asked(settings: Scale) -> set[str]:
    """The methods of any of the scale's grids."""
    evidence = settings.evidence
    return {*settings.methods, *settings.extended, *(evidence.methods + evidence.once if evidence else ())}


def _gpu_errors(method: Method, settings: Scale) -> Iterator[str]:
    """Only trainings are shared out, evenly over nodes and in whole micro-batches."""
    place = f"scales.*.gpus.{method.name}" if method.name in settings.gpus else f"methods.{method.name}.gpus"
    asked, per_node = method.gpus, settings.cluster.gpus_per_node
    if not method.declaration.is_shared:
        shared = [name for name, method in declarations().items() if method.is_shared]
        yield f"{place} is {asked}; only the modules {shared} train on several GPUs"
        return
    if per_node and asked > per_node and asked % per_node:
        yield f"{place} is {asked}; it must be a multiple of scales.*.cluster.gpus_per_node ({per_node}), or no more"
    size = 1 if "micro_batch_size" in method.automatic else method.options.micro_batch_size
    batches = method.options.batch_size // size
    if batches % asked and method.name in _asked(settings):
        yield f"{place} is {asked}; it must divide the {batches} micro-batches of a step of {method.name}"


def _start_errors(name: str, method: Method, methods: dict[str, Method]) -> Iterator[str]:
    """The other methods that a method starts from: whether they are of the right kind, whether they run."""
    if method.warm_start and not _is_one_shot(methods.get(method.warm_start)):
        yield f"methods.{name}.warm_start is {shown(method.warm_start)}; it must be a one-shot method"
    two_four = sorted(other.name for other in methods.values() if other.options.facts["pattern"] == str(TWO_FOUR))
    if "pattern_start" in method.declaration.starts and method.pattern_start not in two_four:
        yield f"methods.{name}.pattern_start is {shown(method.pattern_start)}; it must be a 2:4 method: {two_four}"
    parents = sorted(other.name for other in methods.values() if not other.parent)
    if (method.parent or method.declaration.starts == ("parent",)) and method.parent not in parents:
        one = f"it must be a method that has no parent itself: {parents}"
        yield f"methods.{name}.parent is {shown(method.parent)}; {one}"
    if method.budget_from:
        yield from _budget_errors(name, method, methods)
    if method.selector and method.selector.training_sequences:
        sample = "it must be a method that is calibrated on the calibration sample, as this method is"
        yield f"methods.{name}.selector is {shown(method.selector.name)}; {sample}"
    found = {key: methods.get(start) for key, start in method.starts.items()}
    for key, start in (found | {"selector": method.selector}).items():
        if start and start.has_own_sparsities and not set(method.sparsities) <= set(start.sparsities):
            yield f"methods.{name}.{key} is {start.name!r}, which does not run at every sparsity of {name}"


def _budget_errors(name: str, method: Method, methods: dict[str, Method]) -> Iterator[str]:
    """Whose share of each matrix a one-shot rule may use, and which rule may use it."""
    givers = sorted(
        other.name for other in methods.values() if not other.budget_from and other.options.facts == SPREAD_OUT
    )
    if method.budget_from not in givers:
        one = "it must be a method with one budget for all matrices"
        yield f"methods.{name}.budget_from is {shown(method.budget_from)}; {one}: {givers}"
    if method.options.facts != {"pattern": UNSTRUCTURED, "budget_scope": "tensor"}:
        yield f"methods.{name}.budget_from is {shown(method.budget_from)}; leave pattern and rounding at their defaults"


def _modules(field: str, value: str) -> list[str]:
    """The methods whose declaration has `value` among its `field`, be there a line of them or not."""
    return [name for name, method in declarations().items() if value in getattr(method, field)]


def _is_one_shot(method: Method | None) -> bool:
    return method is not None and not method.declaration.trains
