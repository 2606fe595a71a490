"""The way to a cell's numbers, link by link: is every result on it the one that the workflow asks
for, made from those that lie there now?

Snakemake remembers what it ran, not what lies in a folder: folders may be exchanged, its memory may
be lost while a configuration changes, and a job may run code that was edited after it was planned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leap_repro.errors import UserError, shown
from leap_repro.store.artifacts import Artifact


@dataclass(frozen=True)
class Link:
    """A result by its folder under the scale's results, and what it must have been made with: code,
    parameters, inputs {name: folder}; `cell` is the name that its manifest must bear, if any."""

    folder: str
    code: str
    parameters: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    cell: str | None = None


def pruned_cell(cell: str, methods: dict[str, Any]) -> str:
    """The cell whose pruning was hardened for this one: its own, or that of the line whose logits
    it hardens. `methods`: as `asked_of` says them."""
    model, method, place = cell.split("/", 2)
    return f"{model}/{methods[method]['pruned']}/{place}"


def links_to(cell: str, asked: dict[str, Any]) -> Iterator[Link]:
    """Every result that the numbers of a cell depend on, in the order in which they are made.

    `asked`: what `pipeline.asked.asked_of` says of the cell's model.
    """
    model, _, _, seed = cell.split("/")
    yield from _sample(model, "calibration", seed, asked)
    yield from links_to_mask(cell, asked)
    for role in ("tasks", "perplexity"):
        yield Link(f"data/{role}", asked["code"]["data"], asked["data"][role])
    inputs = {"model": f"models/{model}", "cell": f"harden/{cell}"}
    inputs |= {"tasks": "data/tasks", "text": "data/perplexity"}
    yield Link(f"evaluate/{cell}", asked["code"]["evaluate"], asked["scoring"], inputs, cell)


def _sample(model: str, role: str, seed: str, asked: dict[str, Any]) -> Iterator[Link]:
    """The model, a text, and the shard of tokens that the model's tokenizer makes of it."""
    code, shard = asked["code"], asked["shards"][role]
    yield Link(f"models/{model}", code["models"], asked["model"])
    text = shard["text"]
    yield Link(text, code["data"], asked["data"][text.removeprefix("data/")])
    parameters, inputs = shard["parameters"] | {"seed": int(seed)}, {"model": f"models/{model}"}
    folder = f"calibration/{model}/{role}/{seed}"
    yield Link(folder, code["calibration"], parameters, inputs | {"text": text})


def links_to_mask(cell: str, asked: dict[str, Any]) -> Iterator[Link]:
    """Those that its mask depends on."""
    pruned, method = pruned_cell(cell, asked["methods"]), cell.split("/")[1]
    yield from _pruned(pruned, asked)
    rule = {"rule": asked["methods"][method]["rule"]}
    yield Link(f"harden/{cell}", asked["code"]["harden"], rule, {"pruned": f"prune/{pruned}"}, cell)


def _pruned(cell: str, asked: dict[str, Any]) -> Iterator[Link]:
    """A pruning, after all that it reads."""
    model, method, sparsity, seed = cell.split("/")
    line, place = asked["methods"][method], {"model": model, "sparsity": sparsity, "seed": seed}
    inputs = {name: folder.format(**place) for name, folder in line["inputs"].items()}
    yield Link(f"models/{model}", asked["code"]["models"], asked["model"])
    for folder in inputs.values():
        stage, rest = folder.split("/", 1)
        if stage == "harden":
            yield from links_to_mask(rest, asked)
        else:
            _, role, drawn = rest.split("/")
            yield from _sample(model, role, drawn, asked)
    parameters = line["parameters"] | {"sparsity": sparsity, "seed": int(seed)}
    inputs["model"] = f"models/{model}"
    yield Link(f"prune/{cell}", line["code"], parameters, inputs)


class Chain:
    """Checks the results under `root`, each once however many cells depend on it."""

    def __init__(self, root: Path, asked: dict[str, Any]) -> None:
        self._root, self._asked = root, asked
        self._manifests: dict[str, str] = {}

    def check(self, cell: str) -> None:
        """UserError, naming the cell and the folder to delete, for the first result on the way to
        its numbers that was made with something else than what is asked for or lies there now."""
        self._walk(cell, links_to(cell, self._asked))

    def check_mask(self, cell: str) -> None:
        """The same of the way to its mask, be it evaluated or not."""
        self._walk(cell, links_to_mask(cell, self._asked))

    def _walk(self, cell: str, links: Iterator[Link]) -> None:
        for link in links:
            if link.folder in self._manifests:
                continue
            artifact = Artifact.read(self._root / link.folder)
            wrong = next(self._wrong(link, artifact), None)
            if wrong:
                place = artifact.folder
                raise UserError(f"cell {cell}: {place} {wrong}: delete {place} and run again")
            self._manifests[link.folder] = artifact.manifest_sha256

    def _wrong(self, link: Link, artifact: Artifact) -> Iterator[str]:
        made = artifact.provenance()
        if link.cell is not None and artifact.facts.get("cell") != link.cell:
            yield f"has the cell {artifact.facts.get('cell')}"
        if made.get("code") != link.code:
            codes = f"{made.get('code')}, the workflow requested {link.code}"
            why = "the code was edited after the job was planned, or Snakemake's memory was lost"
            yield f"was made by code {codes} ({why})"
        yield from self._other_inputs(link, made.get("inputs", {}))
        asked = link.parameters | _arithmetic(link.parameters, made)
        for name, found, expected in _differences(made.get("parameters", {}), asked):
            yield f"was made with {name} {shown(found)}, but the workflow requests {shown(expected)}"

    def _other_inputs(self, link: Link, made: dict[str, str]) -> Iterator[str]:
        for name, folder in link.inputs.items():
            if made.get(name) != self._manifests[folder]:
                yield f"was made from another {name} than {self._root / folder}"
        for name in sorted(made.keys() - link.inputs.keys()):
            yield f"was made from a {name}, which the workflow does not request"


def _arithmetic(asked: dict[str, Any], made: dict[str, Any]) -> dict[str, str]:
    """The `bits` that a result can have had where it was made: those of GPUs and of other types are
    native."""
    native = asked.get("dtype") != "float32" or "gpu" in made.get("machine", {})
    return {"bits": "native"} if "bits" in asked and native else {}


def _differences(found: Any, asked: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, found, asked) of what differs, mappings key by key: "options.steps"."""
    if not (isinstance(found, dict) and isinstance(asked, dict)):
        if found != asked:
            yield name, found, asked
        return
    for key in sorted(found.keys() | asked.keys()):
        yield from _differences(found.get(key), asked.get(key), f"{name}.{key}" if name else key)
