"""What the workflow's jobs read and are told, by rule: everything that a Snakemake file would have to decide, but for
tables and figures (`selection.py`).

Folders are relative to a scale's results; the rules turn them into files.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from leap_repro.models.checkpoint import checkpoint_files
from leap_repro.pipeline.grid import DEFAULT, Cell, Study
from leap_repro.pipeline.inputs import method_files, task_files
from leap_repro.pipeline.roles import shard_of
from leap_repro.store.atomic import write_text

ONLY_SHOWN = ("stands_for", "parameters", "gated")
"""What tables and requests to a cluster read of a model's source: a change there fetches nothing again."""

WRITTEN_DOWN = Path(".snakemake/arguments")
"""Where long arguments are written down; `cli.run_stage` reads them."""


def as_json(value: Any) -> str:
    """One string for a params entry: Snakemake compares params as a set of values, a string keeps names and order."""
    return json.dumps(value, sort_keys=True)


def from_file(arguments: Iterable[str]) -> str:
    """One argument that stands for all these: @ and a file with a line for each, which is named by what
    it says, so that it changes as they do. A command line of 131,072 bytes has no room for a grid."""
    text = "".join(f"{argument}\n" for argument in arguments)
    path = WRITTEN_DOWN / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.txt"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return f"@{path}"


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


def shard_text(role: str) -> str:
    """The folder of the text that a token shard is cut from."""
    return f"data/{shard_of(role)[0]}"


def shard_parameters(study: Study, role: str) -> dict[str, Any]:
    """How a token shard is cut: {"recipe", "sequences", "length", "after"}; its seed is the cell's."""
    _, sizes, recipe = shard_of(role)
    shard = getattr(study.settings, sizes)
    if sizes == "calibration" and shard.draw == "as_released":
        recipe = "windows_as_released"
    after = study.settings.calibration.sequences if role == "held_out" else 0
    return {"recipe": recipe, "sequences": shard.sequences, "length": shard.length, "after": after}


def shard_arguments(study: Study, role: str) -> str:
    """The same as a job is told it."""
    asked = shard_parameters(study, role).items()
    return " ".join(f"--{name} {value}" for name, value in asked if value)


def scoring_parameters(study: Study) -> dict[str, Any]:
    """How a cell is scored: {"lengths" of windows, "batch_size", "windows", "questions"}; of the last
    two None stands for all of them."""
    asked = study.settings.evaluation
    parts = {"windows": asked.perplexity_windows, "questions": asked.questions}
    return {"lengths": list(asked.perplexity_lengths), "batch_size": asked.batch_size} | parts


def scoring_arguments(study: Study) -> str:
    """The same as a job is told it."""
    asked = scoring_parameters(study)
    arguments = [f"--lengths {' '.join(map(str, asked['lengths']))}", f"--batch-size {asked['batch_size']}"]
    parts = [(name, asked[name]) for name in ("windows", "questions")]
    return " ".join(arguments + [f"--{name} {most}" for name, most in parts if most is not None])


ARGUMENTS = {"warm_start": "warm-start", "parent": "parent", "budget_from": "budgets"}
"""What a prune job calls the cells that a line of the configuration names."""


def prune_sources(study: Study, model: str, method: str, sparsity: str, seed: str) -> dict[str, str]:
    """{argument: folder} of what a method reads besides the model: tokens, and the cells that it starts from."""
    line = study.methods[method]
    folders = {}
    if line.tokens:
        folders["tokens"] = f"calibration/{model}/{line.tokens}/{seed}"
    if line.is_scored_held_out:
        folders["held-out"] = f"calibration/{model}/held_out/{held_out_seed(study)}"
    starts = started_from(study, method, sparsity, seed)
    return folders | {argument: f"harden/{model}/{'/'.join(start)}" for argument, start in starts.items()}


def started_from(study: Study, method: str, sparsity: str, seed: str) -> dict[str, tuple[str, str, str]]:
    """{argument: (method, sparsity, seed)} of the hardened cells of the same model that a pruning starts from."""
    line = study.methods[method]
    found = {ARGUMENTS[key]: (start, sparsity, start_seed(study, start, seed)) for key, start in line.starts.items()}
    if line.pattern_start:
        (only,) = study.methods[line.pattern_start].sparsities
        found["pattern-start"] = (line.pattern_start, only, seed)
    return found


def with_starts(study: Study, cells: Iterable[Cell]) -> list[Cell]:
    """Cells, and those that their prunings start from, in this grid or not, each once."""
    waiting, found = list(cells), dict[Cell, None]()
    while waiting:
        cell = waiting.pop(0)
        if cell in found:
            continue
        found[cell] = None
        starts = started_from(study, study.pruned(cell).method, cell.sparsity, str(cell.seed))
        waiting += [Cell(cell.model, start, sparsity, int(seed)) for start, sparsity, seed in starts.values()]
    return list(found)


def hardened_from(study: Study, model: str, method: str, sparsity: str, seed: str) -> str:
    """The folder of the pruning whose logits or masks the cell is hardened from: another line's, if it names one."""
    return f"prune/{study.pruned(Cell(model, method, sparsity, int(seed))).path}"


def logits_read_by(study: Study, model: str) -> dict[str, list[str]]:
    """{cell of a model: the cells of all grids that harden its logits by another rule}: until they have, those stay."""
    found: dict[str, list[str]] = {}
    for cell in dict.fromkeys(cell for grid in study.grids for cell in study.cells(model, grid)):
        if study.methods[cell.method].hardens:
            found.setdefault(study.pruned(cell).path, []).append(cell.path)
    return found


def held_out_seed(study: Study) -> int:
    """The seed that draws the held-out text: the first, for trainings of every seed. With a text for each seed, most of
    the variance of the held-out loss between seeds would be that of the text."""
    return study.settings.seeds[0]


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
    trained = [line for line in map(study.methods.__getitem__, study.settings.methods) if line.declaration.trains]
    early = {name for line in trained for name in (line.name, line.pattern_start, *line.starts.values())} - {None}
    places = {model: place for place, model in enumerate(reversed(study.models), start=1)}

    def priority(wildcards: Mapping[str, str]) -> int:
        model = wildcards.get("model")
        if model is None:
            return 2 * (len(places) + 1)
        return 2 * places.get(model, 0) + (wildcards.get("method") in early)

    return priority


def scored_folders(study: Study, model: str, grid: str = DEFAULT) -> Iterator[str]:
    """What the cells of one model left behind: the folders of every stage that a result row is traced to."""
    for cell in study.cells(model, grid):
        yield from (f"harden/{cell.path}", f"evaluate/{cell.path}")


def benchmark_names(study: Study, grid: str = DEFAULT) -> list[str]:
    """The benchmark of every job of the grid that has one, by stage and cell."""
    pruned = [f"prune/{cell.path}" for cell in study.pruned_cells(grid=grid)]
    return pruned + [f"{stage}/{cell.path}" for cell in study.cells(grid=grid) for stage in ("harden", "evaluate")]


def token_shards(study: Study, grid: str = DEFAULT) -> list[str]:
    """The token shards that the grid's cells read: model/role/seed."""
    cells = study.pruned_cells(grid=grid)
    read = (prune_sources(study, c.model, c.method, c.sparsity, str(c.seed)).values() for c in cells)
    top = "calibration/"
    return sorted({folder.removeprefix(top) for folders in read for folder in folders if folder.startswith(top)})


def one_shot_methods(study: Study) -> dict[str, dict[str, Any]]:
    """What the benchmark of one-shot methods times: every one of the grid that prunes without training."""
    methods = [study.methods[name] for name in study.settings.methods]
    pruning = [m for m in methods if m.declaration.selects or m.selector]
    return {m.name: m.description for m in pruning}
