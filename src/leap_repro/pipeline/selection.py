"""What a grid shows: its tables and figures by name, the methods in each, and what their commands are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from leap_repro.pipeline.cross_checks import TABLES_OF_A_STUDY, TABLES_OF_EVIDENCE
from leap_repro.pipeline.grid import DEFAULT, EVIDENCE, EXTENDED, Method, Study
from leap_repro.store.hashes import sha256_of

Facts = dict[str, dict[str, Any]]
"""{method: what tables and figures need to know of it besides its results}"""

DENSE = "dense"
SPREAD = ("global", "tiles")
"""The budget scopes under which blocks may keep different shares."""
REFERENCE = "admm"
"""The module of the method that others are compared with."""
SCHEDULES = {f"{of}_{part}" for of in ("tau", "kappa") for part in ("start", "end", "schedule")}
PUBLISHED_RECORD = Path(__file__).resolve().parents[1] / "report/data/published_results.csv"


def record_digest(name: str) -> str:
    """The sha256 of the published record for a table or figure that reads it: no fingerprint of code sees a change."""
    return sha256_of(PUBLISHED_RECORD) if name in ("published", "differences", "claims", "forest") else ""


def method_facts(study: Study, grid: str = DEFAULT) -> Facts:
    """What tables and figures need to know of a grid's methods besides their results."""
    methods = [study.methods[name] for name in study.grid_methods(grid)]
    return {
        m.name: {
            "module": m.module,
            "label": m.label,
            "variant_of": m.variant_of,
            "changes": m.changes,
            "seeded": m.is_seeded,
            "text": m.text,
            "trains_weights": m.trains_weights,
        }
        for m in methods
    }


def tables(study: Study, grid: str = DEFAULT) -> list[str]:
    """The names of a grid's tables: those that its methods have something to show in."""
    shown = [name for name in TABLES_OF_EVIDENCE if _has_rows(study, name)] if grid == EVIDENCE else []
    return [*TABLES_OF_A_STUDY, *study.models, *(["variants"] if grid == EXTENDED else shown)]


def _has_rows(study: Study, table: str) -> bool:
    """Whether one of the evidence's tables has."""
    if TABLES_OF_EVIDENCE[table] == "crossings":
        return bool(_lines(study, table))
    if table == "fact-free":
        return any(study.methods[name].text for name in study.grid_methods(EVIDENCE))
    needs = {"differences": "forest", "claims": "forest", "correlations": "rounding", "gap": "rounding"}
    return bool(figure_methods(study, needs.get(table, "accuracy"), EVIDENCE))


def _lines(study: Study, table: str) -> list[str]:
    """The rows of "annealing", "few-steps" and "crossings": of what only the evidence has LEAP's other schedules, its
    schedules against numbers of steps, and the rest, but for lines on other text."""
    found = method_facts(study, EVIDENCE)
    lines = [name for name in found if name not in study.settings.methods]
    rows = {"annealing": _annealed(study, found), "few-steps": _few_steps(study, found)}
    if table in rows:
        return [name for name in lines if name in rows[table]]
    shown = {name for names in rows.values() for name in names}
    return [name for name in lines if name not in shown and not found[name]["text"]]


def table_arguments(study: Study, table: str) -> str:
    """What the command of one of the evidence's tables is told besides models and methods."""
    if TABLES_OF_EVIDENCE[table] == "correlations":
        return table
    if table == "overlap":
        return f"--cells-root results/{study.scale}"
    if TABLES_OF_EVIDENCE[table] == "crossings":
        return f"--lines {' '.join(_lines(study, table))}"
    if table == "claims":
        shown = figure_methods(study, "schedules", EVIDENCE)
        annealed = " ".join(name for name, facts in shown.items() if facts["variant_of"])
        return f"--time results/{study.scale}/evidence/tables/time.csv --annealed {annealed}"
    return ""


def table_methods(study: Study, table: str, grid: str = DEFAULT) -> Facts:
    """`method_facts` of the methods that a table shows: the main table leaves variants to theirs."""
    if TABLES_OF_EVIDENCE.get(table) == "correlations":
        return figure_methods(study, "rounding", grid)
    found = method_facts(study, grid)
    return found if table != "main" else {name: facts for name, facts in found.items() if not facts["variant_of"]}


def main_sparsities(study: Study) -> str:
    """Those of the main table: what is asked of the default methods, without the evidence's curve, and lines' own."""
    asked = [*study.settings.sparsities, *(s for line in study.methods.values() for s in line.sparsities)]
    return " ".join(map(str, sorted({0.0, *map(float, asked)})))


def figures(study: Study, grid: str = DEFAULT) -> list[str]:
    """The names of a grid's figures: those that its methods have something to show in."""
    names = (*FIGURES, *FIGURES_OF_EVIDENCE) if grid == EVIDENCE else FIGURES
    return [name for name in names if figure_methods(study, name, grid)]


def figure_methods(study: Study, figure: str, grid: str = DEFAULT) -> Facts:
    """`method_facts` of the methods that a figure shows; none if it has nothing to show in this grid."""
    found = method_facts(study, grid)
    chosen = (FIGURES | FIGURES_OF_EVIDENCE)[figure](study, found)
    if figure != "schedules":
        return {name: found[name] for name in chosen}
    return {name: found[name] | {"options": _changed(study, name)} for name in chosen}


def front_figures(study: Study, grid: str = DEFAULT) -> list[str]:
    """The figures of the report's first page."""
    return [name for name in ("forest",) if name in figures(study, grid)]


def _no_variants(study: Study, found: Facts) -> list[str]:
    """The methods of the main table, if any of them prunes."""
    names = [name for name, facts in found.items() if not facts["variant_of"]]
    return names if any(found[name]["module"] != DENSE for name in names) else []


def _subject(study: Study, found: Facts) -> list[str]:
    """One method: the first whose masks decide themselves where in the model weights stay (a budget for all matrices
    together), or else the first whose masks are learned; a variant only where there is no other."""
    spread = [name for name in found if study.methods[name].options.facts["budget_scope"] in SPREAD]
    learned = _learned(study, found)
    return sorted(spread + learned, key=lambda name: (bool(found[name]["variant_of"]), name not in learned))[:1]


def _learned(study: Study, found: Facts) -> list[str]:
    return [name for name in found if study.methods[name].declaration.trains]


def _against_reference(study: Study, found: Facts) -> list[str]:
    """The subject and the first of the reference's lines, if there are both."""
    subject = _subject(study, found)
    reference = [name for name in found if study.methods[name].module == REFERENCE][:1]
    return [*subject, *reference] if subject and reference else []


def _scored_held_out(study: Study, found: Facts) -> list[str]:
    """What is scored on held-out text while it trains."""
    return [name for name in found if study.methods[name].is_scored_held_out]


def _scored_bases(study: Study, found: Facts) -> list[str]:
    """Of that what is no variant."""
    return [name for name in _scored_held_out(study, found) if not found[name]["variant_of"]]


def _annealed(study: Study, found: Facts) -> list[str]:
    """The subject and its variants that differ in their schedules alone, if there are any."""
    subject = _subject(study, found)
    variants = [name for name in _learned(study, found) if [found[name]["variant_of"]] == subject]
    others = [name for name in variants if _anneals(study, name)]
    return [*subject, *others] if others else []


def _anneals(study: Study, name: str) -> bool:
    """Whether a variant differs in its schedules alone."""
    line = study.methods[name]
    changed = _differences(line, study.methods[line.variant_of]) if line.variant_of else None
    return bool(changed) and changed <= SCHEDULES


def _few_steps(study: Study, found: Facts) -> list[str]:
    """The lines with another number of steps than the subject, and at most another schedule besides; and, with the
    subject's number, those that have one of their schedules."""
    subject = _subject(study, found)
    if not subject:
        return []
    base = study.methods[subject[0]]
    changed = {name: _differences(study.methods[name], base) for name in found if name != base.name}
    alike = {name: keys for name, keys in changed.items() if keys and keys <= {*SCHEDULES, "steps"}}
    short = [name for name, keys in alike.items() if "steps" in keys]
    schedules = [_schedule(study, name) for name in short]
    return [name for name in alike if name in short or _schedule(study, name) in schedules]


def _schedule(study: Study, name: str) -> dict[str, Any]:
    return {key: value for key, value in study.methods[name].options if key in SCHEDULES}


def _differences(line: Method, base: Method) -> set[str] | None:
    """The options in which a training differs from another, evaluations of it left aside; None if more differs."""
    own, other = (each.training | {"options": each.hardening} for each in (line, base))
    if own != other:
        return None
    changed = {key for key, value in line.options if getattr(base.options, key) != value}
    return changed - {"held_out_evaluations"}


def _changed(study: Study, name: str) -> list[str]:
    """The options in which a line differs from the one that it varies; none of a line that varies no other."""
    line = study.methods[name]
    if not line.variant_of:
        return []
    base = study.methods[line.variant_of].options
    return sorted(key for key, value in line.options if getattr(base, key, None) != value)


FIGURES: dict[str, Callable[[Study, Facts], list[str]]] = {
    "forest": _against_reference,
    "density": _subject,
    "accuracy": _no_variants,
}
"""{figure of every grid: which methods it shows}"""
FIGURES_OF_EVIDENCE: dict[str, Callable[[Study, Facts], list[str]]] = {
    "density_by_kind": _subject,
    "training": _scored_bases,
    "rounding": _scored_held_out,
    "schedules": _annealed,
}
"""{figure that only the evidence has: which methods it shows}"""
