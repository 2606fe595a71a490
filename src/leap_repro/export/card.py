"""The model card of an export: README.md with the hub's YAML front matter, from what the run's manifests say.

A line whose source is not known (a cell that lies in no run, a licence nobody named) is left out. Folders of this
machine are told by their last name only: a card is published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from leap_repro.export.forms import DENSE, Packed
from leap_repro.export.index import Index
from leap_repro.export.lineage import Lineage, origin
from leap_repro.export.scores import scores
from leap_repro.sparsity.masks import VALUES_STEM
from leap_repro.store.artifacts import Artifact

PLAIN = 'from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained("this-folder")'
OURS = 'from leap_repro.export.load import load_pruned\n\nmodel = load_pruned("this-folder")'
INSTALL = (
    "\n\n`load_pruned` comes with leap-repro: in a clone of its repository, `pip install -r envs/requirements.txt -e .`"
)
FORMAT_LINE = re.compile(r"^\| format \|.*$", re.MULTILINE)
SIZE_LINE = re.compile(r"^\| weight files \|.*$", re.MULTILINE)
HOW_TO_LOAD = re.compile(r"(?<=^## Load it\n\n).*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
FORMAT_WORDS = {
    DENSE: "dense: an ordinary checkpoint in which dropped weights are zeros",
    "packed": "packed: the kept values and one bit per weight",
    "2:4": "2:4: the kept values and their 2-bit positions, in the layout of torch's semi-structured kernels",
}


def card(lineage: Lineage, form: str, base_bytes: int, own_bytes: int, index: Index | None = None) -> str:
    """The card's text; the sizes are those of the weight files, of the base and of the export, in bytes; `index` is
    that of a compressed export."""
    values = index.values if index else None
    name, (_, method, sparsity, _) = base_name(lineage), _cell_name(lineage.cell)
    told = [*_facts(lineage, form, base_bytes, own_bytes), *_quantised(index)]
    facts = "\n".join(f"| {key} | {value} |" for key, value in told)
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(lineage, method), sort_keys=False, allow_unicode=True)}---",
        f"# {name}, pruned by {method} to {100 * float(sparsity):g} %",
        _introduction(lineage, name, values),
        f"| | |\n|---|---|\n{facts}",
        f"## Load it\n\n{how_to_load(form)}",
        f"## Sparsity by kind of matrix\n\n{_kinds(lineage.cell)}",
    ]
    metrics = scores(lineage)
    if metrics:
        when = f"Measured before the kept values were rounded to {values}.\n\n" if values else ""
        parts.append(f"## Metrics\n\n{when}{metrics}")
    versions = origin(lineage.pruned or lineage.cell)["versions"]
    if versions:
        parts.append("## Versions\n\n" + ", ".join(f"{package} {version}" for package, version in versions.items()))
    return "\n\n".join(parts) + "\n"


def in_form(text: str, form: str, own_bytes: int) -> str:
    """A card after its export was written in another form."""
    text = FORMAT_LINE.sub(f"| format | {FORMAT_WORDS[form]} |", text)
    text = SIZE_LINE.sub(f"| weight files | {own_bytes:,} bytes |", text)
    return HOW_TO_LOAD.sub(lambda found: f"{how_to_load(form)}\n\n", text)


def how_to_load(form: str) -> str:
    """One line of Python, in a block; compressed forms also say how to run them, and how to have them dense."""
    block = f"```python\n{PLAIN if form == DENSE else OURS}\n```"
    if form == DENSE:
        return block
    packed = (
        "\n\nWithout its zeros in memory, for inference on a CPU: "
        '`load_pruned("this-folder", run="packed")`, or `leap-repro generate this-folder --prompt "…"`.'
    )
    runs = packed if form == Packed.name else ""
    return f"{block}{INSTALL}{runs}\n\nOr as an ordinary checkpoint: `leap-repro unpack this-folder --output dense`."


def base_name(lineage: Lineage) -> str:
    """The base's id on the hub, else the name of its folder or of the bundled model."""
    spec = origin(lineage.model)["parameters"]
    return str(spec.get("id") or spec.get("name") or Path(spec.get("path", _cell_name(lineage.cell)[0])).name)


def _introduction(lineage: Lineage, name: str, values: str | None) -> str:
    page = _page(lineage)
    has_values = any(file.startswith(VALUES_STEM) for file in lineage.cell.files)
    moved = "have new values" if has_values else "are unchanged"
    if values:
        moved += f", rounded to {values}"
    return f"{f'[{name}]({page})' if page else name} with a share of its weights set to zero; the others {moved}."


def _page(lineage: Lineage) -> str | None:
    spec = origin(lineage.model)["parameters"]
    return f"https://huggingface.co/{spec['id']}" if "id" in spec else None


def _cell_name(cell: Artifact) -> tuple[str, str, str, str]:
    """(model, method, sparsity, seed); a cell by hand may be called anything."""
    parts = cell.facts["cell"].split("/")
    return tuple(parts) if len(parts) == 4 else (parts[0], parts[-1], cell.facts["sparsity"], str(cell.facts["seed"]))


def _front_matter(lineage: Lineage, method: str) -> dict[str, Any]:
    spec = origin(lineage.model)["parameters"]
    found = {"base_model": spec.get("id"), "license": lineage.licence}
    fixed = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    return {k: v for k, v in found.items() if v} | fixed | {"tags": ["pruned", "sparse", method, "leap-repro"]}


def _facts(lineage: Lineage, form: str, base_bytes: int, own_bytes: int) -> Iterator[tuple[str, str]]:
    model, cell, pruned = lineage.model.facts, lineage.cell.facts, origin(lineage.pruned)["parameters"]
    kept, prunable, parameters = cell["kept"], cell["prunable"], model.get("parameters")
    kind = "revision" if _page(lineage) else "sha256 of its weights"
    yield "base model", base_name(lineage) + (f", {kind} {model['revision']}" if "revision" in model else "")
    yield "licence", lineage.licence or "that of the base model"
    yield "method", pruned.get("module", _cell_name(lineage.cell)[1]) + _options(pruned)
    yield "mask", f"{cell['pattern']}, seed {cell['seed']}"
    yield "kept of the prunable weights", _share(kept, prunable)
    if parameters:
        yield "kept of all weights", _share(parameters - prunable + kept, parameters)
    if lineage.tokens:
        yield "calibration", _calibration(lineage)
    if "bits" in pruned:
        yield "pruned in", f"{pruned['dtype']}, {pruned['bits']} bits"
    yield "format", FORMAT_WORDS[form]
    yield "weight files", f"{own_bytes:,} bytes, {own_bytes / base_bytes:.4f} of the base's {base_bytes:,}"
    if lineage.command:
        yield "command", f"`{lineage.command}`"


def _quantised(index: Index | None) -> Iterator[tuple[str, str]]:
    """What rounding did to the kept values, if it was done."""
    if index is None or index.values is None:
        return
    zeros, kept = (sum(entry[what] for entry in index.tensors.values()) for what in ("became_zero", "kept"))
    yield "values", f"{index.values}, a scale for each row"
    yield "kept values that this rounding set to 0", _share(zeros, kept)


def _options(pruned: dict[str, Any]) -> str:
    """The options and the selector that a cell was made with."""
    given = (pruned.get("options") or {}).items()
    chosen = [f"{key} {Path(value).name if key == 'path' else value}" for key, value in given]
    selector = pruned.get("selector")
    return (f" on the masks of {selector['module']}" if selector else "") + (
        f" ({', '.join(chosen)})" if chosen else ""
    )


def _share(kept: int, total: int) -> str:
    return f"{kept:,} of {total:,} ({100 * kept / total:.2f} %)"


def _calibration(lineage: Lineage) -> str:
    shard = lineage.tokens.facts if lineage.tokens else {}
    text = origin(lineage.text)["parameters"]
    named = {"hub": text.get("id"), "path": Path(text.get("path", "")).name, "bundled": "the miniature's text"}
    source = named.get(text.get("source"))
    revision = f" at {text['revision']}" if "revision" in text else ""
    return f"{shard['sequences']} sequences of {shard['length']} tokens{f' of {source}' if source else ''}{revision}"


def _kinds(cell: Artifact) -> str:
    """A table of kept weights, one line for the matrices of all blocks that bear one name."""
    kinds: dict[str, list[int]] = {}
    for row in cell.facts["tensors"]:
        name = row["tensor"].removesuffix(".weight").split(".")
        kind = kinds.setdefault(f"expert {name[-1]}" if "experts" in name else name[-1], [0, 0, 0])
        for place, number in enumerate((1, row["kept"], row["numel"])):
            kind[place] += number
    lines = [f"| {name} | {n} | {kept:,} | {1 - kept / size:.4f} |" for name, (n, kept, size) in kinds.items()]
    return "\n".join(["| kind | matrices | kept weights | sparsity |", "|---|---:|---:|---:|", *lines])
