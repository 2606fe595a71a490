"""What the workflow's jobs read and are told, by rule: everything that a Snakemake file would have to decide.

Folders are relative to a scale's results; the rules turn them into files.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from leap_repro.models.checkpoint import checkpoint_files
from leap_repro.store.hashes import sha256_of
from leap_repro.study.contradictions import TABLES_OF_A_STUDY, TABLES_OF_EVIDENCE
from leap_repro.study.grid import DEFAULT, EVIDENCE, EXTENDED, SHARDS, Study
from leap_repro.study.inputs import method_files, task_files

ONLY_SHOWN = ("stands_for", "parameters", "gated")
"""What tables and requests to a cluster read of a model's source: a change there fetches nothing again."""
DENSE = "dense"
SPREAD = ("global", "tiles")
"""The budget scopes under which blocks may keep different shares."""
REFERENCE = "admm"
"""The module of the method that others are compared with."""
SCHEDULES = {f"{of}_{part}" for of in ("tau", "kappa") for part in ("start", "end", "schedule")}
FIGURES = ("forest", "density", "accuracy")
FIGURES_OF_EVIDENCE = ("density_by_kind", "training", "rounding", "schedules")


PUBLISHED_RECORD = Path(__file__).resolve().parents[1] / "aggregate/data/published_results.csv"


def record_digest(table: str) -> str:
    """The sha256 of the published record for a table or figure that reads it: no fingerprint of code sees a change."""
    return sha256_of(PUBLISHED_RECORD) if table in ("published", "differences", "claims", "forest") else ""


def as_json(value: Any) -> str:
    """One string for a params entry: Snakemake compares params as a set of values, a string keeps names and order."""
    return json.dumps(value, sort_keys=True)


def tables(study: Study, grid: str = DEFAULT) -> list[str]:
    """The names of a grid's tables: those that its methods have something to show in."""
    shown = [name for name in TABLES_OF_EVIDENCE if _has_rows(study, name)] if grid == EVIDENCE else []
    return [*TABLES_OF_A_STUDY, *study.models, *(["variants"] if grid == EXTENDED else shown)]


def _has_rows(study: Study, table: str) -> bool:
    """Whether one of the evidence's tables has."""
    if TABLES_OF_EVIDENCE[table] == "crossings":
        return bool(_lines(study, table))
    needs = {"differences": "forest", "claims": "forest", "correlations": "rounding", "gap": "rounding"}
    return bool(figure_methods(study, needs.get(table, "accuracy"), EVIDENCE))


def _lines(study: Study, table: str) -> list[str]:
    """The rows of "crossings" and of "schedules": what only the evidence has, LEAP's other schedules by themselves."""
    annealed = figure_methods(study, "schedules", EVIDENCE)
    lines = [name for name in study.grid_methods(EVIDENCE) if name not in study.settings.methods]
    return [name for name in lines if (name in annealed) == (table == "schedules")]


def table_arguments(study: Study, table: str) -> str:
    """What the command of one of the evidence's tables is told besides models and methods."""
    if TABLES_OF_EVIDENCE[table] == "rounding":
        return table
    if table == "overlap":
        return f"--cells-root results/{study.scale}"
    if TABLES_OF_EVIDENCE[table] == "crossings":
        return f"--lines {' '.join(_lines(study, table))}"
    if table == "claims":
        shown = figure_methods(study, "schedules", EVIDENCE)
        return "--annealed " + " ".join(name for name, facts in shown.items() if facts["variant_of"])
    return ""


def table_methods(study: Study, table: str, grid: str = DEFAULT) -> dict[str, dict[str, Any]]:
    """`method_facts` of the methods that a table shows: the main table leaves variants to theirs."""
    found = method_facts(study, grid)
    if table == "main":
        return {name: facts for name, facts in found.items() if not facts["variant_of"]}
    if TABLES_OF_EVIDENCE.get(table) == "rounding":
        return figure_methods(study, "rounding", grid)
    return found


def main_sparsities(study: Study) -> str:
    """Those of the main table: what is asked of the default methods, without the evidence's curve, and lines' own."""
    asked = [*study.settings.sparsities, *(s for line in study.methods.values() for s in line.sparsities)]
    return " ".join(map(str, sorted({0.0, *map(float, asked)})))


def figures(study: Study, grid: str = DEFAULT) -> list[str]:
    """The names of a grid's figures: those that its methods have something to show in."""
    names = FIGURES + (FIGURES_OF_EVIDENCE if grid == EVIDENCE else ())
    return [name for name in names if figure_methods(study, name, grid)]


def figure_methods(study: Study, figure: str, grid: str = DEFAULT) -> dict[str, dict[str, Any]]:
    """`method_facts` of the methods that a figure shows; none if it has nothing to show in this grid.

    "accuracy" shows the default grid's. "density" shows one method, the first whose masks decide themselves where in
    the model weights stay (a budget for all matrices together), or else the first whose masks are learned; a variant
    only where there is no other. "forest" compares it with the reference, "schedules" with its variants. "rounding"
    shows what looks at held-out text, "training" of that what is no variant.
    """
    found = method_facts(study, grid)
    if figure == "accuracy":
        pruning = [name for name in study.settings.methods if study.methods[name].module != DENSE]
        return {name: found[name] for name in study.settings.methods} if pruning else {}
    looking = {name: facts for name, facts in found.items() if study.methods[name].looks}
    if figure == "rounding":
        return looking
    if figure == "training":
        return {name: facts for name, facts in looking.items() if not facts["variant_of"]}
    spread = [name for name in found if study.methods[name].options.facts["budget_scope"] in SPREAD]
    learned = [name for name in found if study.methods[name].declaration.trains]
    candidates = spread + learned
    shown = sorted(candidates, key=lambda name: (found[name]["variant_of"] is not None, name not in learned))[:1]
    if figure == "schedules":
        shown += [name for name in learned if shown and found[name]["variant_of"] == shown[0] and _anneals(study, name)]
        shown = shown if len(shown) > 1 else []
    if figure == "forest":
        reference = [name for name in found if study.methods[name].module == REFERENCE]
        shown = [*shown, *reference[:1]] if shown and reference else []
    return {name: found[name] for name in shown}


def front_figures(study: Study, grid: str = DEFAULT) -> list[str]:
    """The figures of the report's first page."""
    return [name for name in ("forest",) if name in figures(study, grid)]


def _anneals(study: Study, name: str) -> bool:
    """Whether a variant differs in its schedules alone."""
    line = study.methods[name]
    base = study.methods[line.variant_of]
    changed = {key for key, value in line.options if getattr(base.options, key, None) != value} - {"looks"}
    return bool(changed) and changed <= SCHEDULES and line.module == base.module and line.starts == base.starts


def model_source(study: Study, model: str) -> dict[str, Any]:
    """Where a model comes from: what its fetch is told."""
    return {key: value for key, value in study.models[model].items() if key not in ONLY_SHOWN}


def model_files(study: Study, model: str) -> list[str]:
    """The files of a model that lies on this machine, all that its fetch copies, so that a change is noticed."""
    path = study.models[model].get("path")
    return [str(file) for file in checkpoint_files(Path(path).expanduser())] if path else []


def data_files(study: Study, role: str) -> list[str]:
    """The files of a text or of task sets that lie on this machine, so that a change in them is noticed."""
    source = study.data[role]
    if role == "tasks":
        return [str(path) for path in task_files(source)]
    return [str(Path(source["path"]).expanduser())] if "path" in source else []


def masks_files(study: Study, method: str) -> list[str]:
    """The files of masks that a method takes over, so that a change in them is noticed."""
    return [str(path) for path in method_files(study.methods[method])]


def shard_arguments(study: Study, role: str) -> str:
    """How a token shard is cut."""
    _, sizes, recipe = SHARDS[role]
    shard = getattr(study.settings, sizes)
    if role == "calibration" and shard.draw == "as_released":
        recipe = "windows_as_released"
    after = f" --after {study.settings.calibration.sequences}" if role == "held_out" else ""
    return f"--recipe {recipe} --sequences {shard.sequences} --length {shard.length}{after}"


def scoring_arguments(study: Study) -> str:
    """How a cell is scored: window lengths, batch, and what is left out of windows and questions, if anything."""
    asked = study.settings.evaluation
    arguments = [f"--lengths {' '.join(map(str, asked.perplexity_lengths))}", f"--batch-size {asked.batch_size}"]
    parts = {"windows": asked.perplexity_windows, "questions": asked.questions}
    return " ".join(arguments + [f"--{name} {most}" for name, most in parts.items() if most is not None])


ARGUMENTS = {"warm_start": "warm-start", "parent": "parent", "budget_from": "budgets"}
"""What a prune job calls the cells that a line of the configuration names."""


def prune_sources(study: Study, model: str, method: str, sparsity: str, seed: str) -> dict[str, str]:
    """{argument: folder} of what a method reads besides the model: tokens, and the cells that it starts from."""
    line = study.methods[method]
    folders = {}
    if line.tokens:
        folders["tokens"] = f"calibration/{model}/{line.tokens}/{seed}"
    if line.looks:
        folders["held-out"] = f"calibration/{model}/held_out/{seed}"
    for key, start in line.starts.items():
        folders[ARGUMENTS[key]] = f"harden/{model}/{start}/{sparsity}/{start_seed(study, start, seed)}"
    if line.pattern_start:
        (only,) = study.methods[line.pattern_start].sparsities
        folders["pattern-start"] = f"harden/{model}/{line.pattern_start}/{only}/{seed}"
    return folders


def start_seed(study: Study, method: str, seed: str) -> str:
    """The seed of the cell that another starts from: that of its own, or the first if nothing is drawn for it."""
    return seed if study.methods[method].is_seeded else str(study.settings.seeds[0])


def prune_arguments(study: Study, method: str, manifests: dict[str, str]) -> str:
    """The arguments that say what a method starts from: those folders' manifests, for a reconstruction its selector."""
    arguments = [f"--{name} {manifest}" for name, manifest in manifests.items()]
    selector = study.methods[method].selector
    if selector:
        arguments.append(f"--selector {shlex.quote(as_json(selector.description))}")
    return " ".join(arguments)


def priorities(study: Study) -> Callable[[Mapping[str, str]], int]:
    """Which of the jobs that could start does so: a function of a job's wildcards, the highest number first.

    What all models need comes first, then model by model in the configuration's order, so that one table is there
    early. Within a model, trainings and the cells that they start from come first: they take longest, and no core
    should wait for one alone at the end. What the default grid trains decides: its table is the one that is waited for.
    """
    trained = [line for line in map(study.methods.get, study.settings.methods) if line.declaration.trains]
    early = {name for line in trained for name in (line.name, line.pattern_start, *line.starts.values())} - {None}
    places = {model: place for place, model in enumerate(reversed(study.models), start=1)}

    def priority(wildcards: Mapping[str, str]) -> int:
        if wildcards.get("model") is None:
            return 2 * (len(places) + 1)
        return 2 * places.get(wildcards.get("model"), 0) + (wildcards.get("method") in early)

    return priority


def scored_folders(study: Study, model: str, grid: str = DEFAULT) -> Iterator[str]:
    """What the cells of one model left behind: the folders of every stage that a result row is traced to."""
    for cell in study.cells(model, grid):
        yield from (f"harden/{cell.path}", f"evaluate/{cell.path}")


def benchmark_names(study: Study, grid: str = DEFAULT) -> list[str]:
    """The benchmark of every job of the grid that has one, by stage and cell."""
    return [f"{stage}/{cell.path}" for cell in study.cells(grid=grid) for stage in ("prune", "harden", "evaluate")]


def method_facts(study: Study, grid: str = DEFAULT) -> dict[str, dict[str, Any]]:
    """What tables and figures need to know of a grid's methods besides their results."""
    methods = [study.methods[name] for name in study.grid_methods(grid)]
    return {
        m.name: {
            "module": m.module,
            "label": m.label,
            "variant_of": m.variant_of,
            "changes": m.changes,
            "seeded": m.is_seeded,
        }
        for m in methods
    }


def one_shot_methods(study: Study) -> dict[str, dict[str, Any]]:
    """What the benchmark of one-shot methods times: every one of the grid that prunes without training."""
    methods = [study.methods[name] for name in study.settings.methods]
    pruning = [m for m in methods if m.declaration.selects or m.selector]
    return {m.name: m.description for m in pruning}
