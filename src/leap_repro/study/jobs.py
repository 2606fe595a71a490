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
from leap_repro.study.grid import SHARDS, Study
from leap_repro.study.inputs import method_files, task_files

ONLY_SHOWN = ("stands_for", "parameters", "gated")
"""What tables and requests to a cluster read of a model's source: a change there fetches nothing again."""
DENSE = "dense"
SPREAD = ("global", "tiles")
"""The budget scopes under which blocks may keep different shares."""
TABLES_OF_A_STUDY = ("main", "time", "published")


PUBLISHED_RECORD = Path(__file__).resolve().parents[1] / "aggregate/data/published_results.csv"


def record_digest(table: str) -> str:
    """The sha256 of the published record for the table that reads it: a change that no fingerprint of code sees."""
    return sha256_of(PUBLISHED_RECORD) if table == "published" else ""


def as_json(value: Any) -> str:
    """One string for a params entry: Snakemake compares params as a set of values, a string keeps names and order."""
    return json.dumps(value, sort_keys=True)


def tables(study: Study, extended: bool) -> list[str]:
    """The names of a grid's tables."""
    return [*TABLES_OF_A_STUDY, *study.models, *(["variants"] if extended else [])]


def figures(study: Study, extended: bool) -> list[str]:
    """The names of a grid's figures: those that its methods have something to show in."""
    return [name for name in ("density", "accuracy") if figure_methods(study, name, extended)]


def figure_methods(study: Study, figure: str, extended: bool) -> dict[str, dict[str, Any]]:
    """`method_facts` of the methods that a figure shows; none if it has nothing to show in this grid.

    "accuracy" shows every method that prunes. "density" shows one, the first whose masks decide themselves where in the
    model weights stay (a budget for all matrices together), or else the first whose masks are learned; a variant only
    where there is no other.
    """
    found = method_facts(study, extended)
    if figure == "accuracy":
        pruning = [name for name in found if study.methods[name].module != DENSE and not found[name]["variant_of"]]
        return found if pruning else {}
    spread = [name for name in found if study.methods[name].options.facts["budget_scope"] in SPREAD]
    learned = [name for name in found if study.methods[name].declaration.trains]
    shown = sorted(spread + learned, key=lambda name: found[name]["variant_of"] is not None)
    return {name: found[name] for name in shown[:1]}


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
    name, recipe = SHARDS[role]
    shard = getattr(study.settings, name)
    if recipe == "windows" and shard.draw == "as_released":
        recipe = "windows_as_released"
    return f"--recipe {recipe} --sequences {shard.sequences} --length {shard.length}"


def scoring_arguments(study: Study) -> str:
    """How a cell is scored: window lengths, batch, and what is left out of windows and questions, if anything."""
    asked = study.settings.evaluation
    arguments = [f"--lengths {' '.join(map(str, asked.perplexity_lengths))}", f"--batch-size {asked.batch_size}"]
    parts = {"windows": asked.perplexity_windows, "questions": asked.questions}
    return " ".join(arguments + [f"--{name} {most}" for name, most in parts.items() if most is not None])


def prune_sources(study: Study, model: str, method: str, sparsity: str, seed: str) -> dict[str, str]:
    """{argument: folder} of what a method reads besides the model: tokens, and the cells that it starts from."""
    line = study.methods[method]
    folders = {}
    if line.tokens:
        folders["tokens"] = f"calibration/{model}/{line.tokens}/{seed}"
    if line.warm_start:
        folders["warm-start"] = f"harden/{model}/{line.warm_start}/{sparsity}/{seed}"
    if line.parent:
        folders["parent"] = f"harden/{model}/{line.parent}/{sparsity}/{seed}"
    if line.pattern_start:
        (only,) = study.methods[line.pattern_start].sparsities
        folders["pattern-start"] = f"harden/{model}/{line.pattern_start}/{only}/{seed}"
    return folders


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
    early = {name for line in trained for name in (line.name, line.warm_start, line.pattern_start, line.parent)} - {
        None
    }
    places = {model: place for place, model in enumerate(reversed(study.models), start=1)}

    def priority(wildcards: Mapping[str, str]) -> int:
        if wildcards.get("model") is None:
            return 2 * (len(places) + 1)
        return 2 * places.get(wildcards.get("model"), 0) + (wildcards.get("method") in early)

    return priority


def scored_folders(study: Study, model: str, extended: bool) -> Iterator[str]:
    """What the cells of one model left behind: the folders of every stage that a result row is traced to."""
    for cell in study.cells(model, extended):
        yield from (f"harden/{cell.path}", f"evaluate/{cell.path}")


def benchmark_names(study: Study, extended: bool) -> list[str]:
    """The benchmark of every job of the grid that has one, by stage and cell."""
    return [
        f"{stage}/{cell.path}" for cell in study.cells(extended=extended) for stage in ("prune", "harden", "evaluate")
    ]


def method_facts(study: Study, extended: bool) -> dict[str, dict[str, Any]]:
    """What tables and figures need to know of a grid's methods besides their results."""
    methods = [study.methods[name] for name in study.grid_methods(extended)]
    return {
        m.name: {"module": m.module, "label": m.label, "variant_of": m.variant_of, "changes": m.changes}
        for m in methods
    }


def one_shot_methods(study: Study) -> dict[str, dict[str, Any]]:
    """What the benchmark of one-shot methods times: every one of the grid that prunes without training."""
    methods = [study.methods[name] for name in study.settings.methods]
    pruning = [m for m in methods if m.declaration.selects or m.selector]
    return {m.name: m.description for m in pruning}
