"""What the results of a grid must have been made with: code, parameters and inputs, as each one's
`provenance.json` says them.

The rule that collects hands it over as JSON, by method and not by cell, so that no command line
grows with the grid; places in it ("{model}", "{sparsity}", "{seed}") are filled in for each cell.
"""

from __future__ import annotations

from typing import Any

from leap_repro.pipeline import jobs
from leap_repro.pipeline.chain import links_to
from leap_repro.pipeline.grid import DEFAULT, Study
from leap_repro.pipeline.tracking import code, prune_modules, stage

STAGES = ("models", "data", "calibration", "harden", "evaluate")
"""The stages besides prune whose code every result row of a cell depends on."""
PLACE = {name: f"{{{name}}}" for name in ("model", "sparsity", "seed")}


def asked_of(study: Study, model: str, grid: str = DEFAULT) -> dict[str, Any]:
    """{"code": by stage, "model": its source, "data": sources by role, "shards": by role,
    "methods": by name, with those that others start from, "scoring": how cells are evaluated}."""
    methods = {name: _method(study, name, model) for name in _reached(study, model, grid)}
    return {
        "code": {name: code(stage(name)) for name in STAGES},
        "model": jobs.model_source(study, model),
        "data": study.data,
        "shards": {role: _shard(study, role) for role in _roles(methods)},
        "methods": methods,
        "scoring": jobs.scoring_parameters(study) | _arithmetic(study),
    }


def traced_folders(study: Study, model: str, grid: str = DEFAULT) -> list[str]:
    """Every result that the numbers of a model's cells depend on, each once: what is refused when
    it is collected, and deleted, is then made again."""
    asked = asked_of(study, model, grid)
    links = (link for cell in study.cells(model, grid) for link in links_to(cell.path, asked))
    return list(dict.fromkeys(link.folder for link in links))


def _reached(study: Study, model: str, grid: str) -> list[str]:
    """The methods of a model's cells, and those whose cells or logits they read."""
    waiting, found = [cell.method for cell in study.cells(model, grid)], set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        line = study.methods[name]
        read = (line.hardens, line.pattern_start, *line.starts.values())
        waiting += [other for other in read if other]
    return sorted(found)


def _method(study: Study, name: str, model: str) -> dict[str, Any]:
    """Its pruning (`code`, `parameters` besides sparsity and seed, `inputs` besides the model), its
    hardening `rule`, and the method whose logits or masks that is applied to (`pruned`)."""
    line = study.line(name, model)
    sources = jobs.prune_sources(study, PLACE["model"], name, PLACE["sparsity"], PLACE["seed"])
    selector = line.selector.description if line.selector else None
    parameters = {"module": line.module, "options": line.given, "selector": selector}
    return {
        "code": code(*prune_modules(line)),
        "parameters": parameters | _arithmetic(study),
        "inputs": {argument.replace("-", "_"): folder for argument, folder in sources.items()},
        "rule": line.hardening,
        "pruned": line.hardens or name,
    }


def _arithmetic(study: Study) -> dict[str, str]:
    return {"dtype": study.settings.dtype, "bits": study.settings.kernels}


def _roles(methods: dict[str, Any]) -> list[str]:
    """The token shards that are read: the sample, which every row names, and the methods'."""
    folders = [folder for method in methods.values() for folder in method["inputs"].values()]
    read = {folder.split("/")[2] for folder in folders if folder.startswith("calibration/")}
    return sorted(read | {"calibration"})


def _shard(study: Study, role: str) -> dict[str, Any]:
    """Its text's folder, and how it is cut, besides the seed."""
    return {"text": jobs.shard_text(role), "parameters": jobs.shard_parameters(study, role)}
