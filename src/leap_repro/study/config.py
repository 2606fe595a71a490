"""What config.yaml may hold: every key with its type, bounds and meaning. Every level is closed: other keys are typos.

`python -m leap_repro.study.config` writes the JSON schema that editors read. What keys must be to one another is
checked in `grid.py`. No heavy imports: every dry run pays for them.
"""

from __future__ import annotations

import argparse
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, create_model, model_validator

from leap_repro.checked import (
    UNKNOWN_KIND,
    Closed,
    Positive,
    Precision,
    Share,
    contradiction,
    distinct,
    kind_of,
    kind_tag,
    told,
)
from leap_repro.cli import run_stage
from leap_repro.prune.declaration import Options
from leap_repro.prune.methods import declaration, names
from leap_repro.store.atomic import write_json

SCHEMA = Path("workflow/schemas/config.schema.json")


def _text(pattern: str, words: str) -> Any:
    return Annotated[str, Field(pattern=pattern), told(words)]


Name = _text(
    "^[A-Za-z0-9][A-Za-z0-9._+-]*$", "a name may hold letters, digits and . _ + - only, because it becomes a folder"
)
Label = _text(r"^[^|\n\r]+$", "it must be one line of text without |")
Some = Annotated[str, Field(min_length=1), told("it must not be empty")]
Sha256 = _text("^[0-9a-f]{64}$", "it must be 64 hexadecimal digits")
HubId = _text(
    "^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$",
    "it must be the id of a repository on the hub, <owner>/<name>",
)
Revision = _text("^[A-Za-z0-9][A-Za-z0-9._/-]*$", "it must be a commit of 40 digits, a branch or a tag")
Definition = _text(
    "^[A-Za-z0-9].*[.]yaml$",
    "it must be the path of a task's YAML below lm_eval/tasks, such as super_glue/boolq/default.yaml",
)
Length = Annotated[int, Field(ge=2), told("it must be an integer of at least 2 tokens")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), told("a seed must be an integer from 0 to 4294967295")]
Sparsity = Annotated[Share, told("a sparsity must be a number in [0, 1)")]
Sparsities = Annotated[list[Sparsity], distinct("sparsities")]
Methods = Annotated[list[str], distinct("method names")]
Expected = Annotated[dict[str, Positive] | None, Field(description="sizes that what comes must have")]
Splits = Annotated[dict[str, Some], Field(min_length=1)]


def _union(field: str, kinds: dict[str, type[Closed]]) -> Any:
    """Which of several models a mapping is, by the value of its key `field`."""
    members = [Annotated[model, Tag(kind_tag(name))] for name, model in kinds.items()]
    chooser = Discriminator(
        kind_of(field), custom_error_type=UNKNOWN_KIND, custom_error_message=f"{field} {list(kinds)}"
    )
    return Annotated[reduce(or_, members), chooser]


class _Model(Closed):
    parameters: Positive | None = Field(
        None,
        description="about how many, to size jobs by; not needed where `expect` says it or the weights are at hand",
    )
    stands_for: Label | None = Field(
        None, description="the model's name in the published tables, which are shown beside ours"
    )


class BundledModel(_Model):
    """One of the released miniature models."""

    source: Literal["bundled"]
    name: Some
    sha256: Sha256 | None = None


class PathModel(_Model):
    """A Hugging Face folder on this machine."""

    source: Literal["path"]
    path: Some


class HubModel(_Model):
    """A repository of the hub at a pinned commit."""

    source: Literal["hub"]
    id: HubId
    revision: Revision
    expect: Expected = None
    gated: bool = Field(
        False, description="the hub gives it only to accounts that accepted its terms: without a token no run starts"
    )


class BundledText(Closed):
    """A part of the miniature's text."""

    source: Literal["bundled"]
    split: Literal["calibration", "mask_training", "test", "train"]


class PathText(Closed):
    """A file on this machine: parquet with a column text, JSON lines with a key text, or plain text."""

    source: Literal["path"]
    path: Some


class HubText(Closed):
    """Files of a data set on the hub at a pinned commit."""

    source: Literal["hub"]
    id: HubId
    revision: Revision
    files: Annotated[list[Some], distinct("file names, or patterns with * ? [], in the repository")]
    expect: Expected = None


class HubSet(Closed):
    """One task set on the hub: a parquet file for each split."""

    id: HubId
    revision: Revision
    files: Splits
    split_by: str | None = Field(None, description="the column that cuts the files into one set for each of its values")
    expect: Expected = None


class FurtherTask(Closed):
    """A task beyond the six: one of lm-eval's definitions, and its data on this machine (`path`) or on the hub."""

    definition: Definition
    path: Some | None = None
    id: HubId | None = None
    revision: Revision | None = None
    files: Splits | None = None
    expect: Expected = None

    @model_validator(mode="after")
    def _lies_somewhere(self) -> FurtherTask:
        on_hub = [key for key in ("id", "revision", "files") if getattr(self, key) is not None]
        if self.path is not None and on_hub:
            raise contradiction(on_hub[0], repr(getattr(self, on_hub[0])), "a task with a path has none")
        if self.path is None and len(on_hub) < 3:
            raise contradiction("path", "missing", "a task has either a path, or id, revision and files")
        return self


class _Tasks(Closed):
    further: dict[Name, FurtherTask] = Field({}, description="tasks beyond the six")


class BundledTasks(_Tasks):
    """The six task sets of the miniature."""

    source: Literal["bundled"]


class PathTasks(_Tasks):
    """A folder with <set>/<split>.parquet."""

    source: Literal["path"]
    path: Some


class HubTasks(_Tasks):
    """Task sets on the hub."""

    source: Literal["hub"]
    sets: Annotated[dict[Name, HubSet], Field(min_length=1)]


Model = _union("source", {"bundled": BundledModel, "path": PathModel, "hub": HubModel})
Text = _union("source", {"bundled": BundledText, "path": PathText, "hub": HubText})
Tasks = _union("source", {"bundled": BundledTasks, "path": PathTasks, "hub": HubTasks})


class Data(Closed):
    """Where text and questions come from."""

    calibration: Text
    mask_training: Text | None = None
    perplexity: Text
    tasks: Tasks


class Shard(Closed):
    """How many token sequences are cut from a text, and how long each is."""

    sequences: Positive
    length: Length


class Evaluation(Closed):
    """How cells are scored."""

    perplexity_lengths: Annotated[list[Length], distinct("lengths in tokens")]
    batch_size: Positive


class Cluster(Closed):
    """What jobs ask a cluster for; unused in local runs."""

    gpus: Literal[0, 1] = 0
    partition: Name | None = None
    gpu_partition: Name | None = None
    max_runtime: Positive | None = Field(
        None, description="minutes, the partition's limit; a learned gate that hits it goes on from its checkpoint"
    )


class Scale(Closed):
    """One grid: which models, data, methods and sizes."""

    models: Annotated[dict[Name, Model], Field(min_length=1)]
    data: Data
    calibration: Shard
    mask_training: Shard | None = None
    evaluation: Evaluation
    dtype: Precision = "float32"
    threads: Positive
    cluster: Cluster = Cluster()
    methods: Methods
    extended: list[str] = Field([], description="run beside `methods` by the target extended")
    sparsities: Sparsities
    seeds: Annotated[list[Seed], distinct("seeds")]
    options: dict[str, dict[str, Any]] = Field({}, description="by method: this scale's, laid over the method's own")
    only_models: dict[str, Annotated[list[str], distinct("model names")]] = Field(
        {}, description="by method: the models that it runs on, where not on all"
    )


class Line(Closed):
    """One line of `methods:`."""

    module: str
    label: Label | None = None
    sparsities: Sparsities | None = None
    warm_start: str | None = None
    pattern_start: str | None = None
    selector: str | None = None
    hardening: Literal["exact", "threshold"] = "exact"
    variant_of: str | None = None
    changes: Label | None = None
    options: Options = Options()

    @model_validator(mode="after")
    def _changes_something(self) -> Line:
        if self.changes is not None and self.variant_of is None:
            raise contradiction("changes", repr(self.changes), "only a line with variant_of has changes")
        return self


@cache
def _line_of(module: str) -> type[Line]:
    options = declaration(module).options
    return create_model(
        f"{module}_line", __base__=Line, module=(Literal[module], ...), options=(options, options.model_construct())
    )


class Config(Closed):
    """config.yaml."""

    scale: str = Field(description="which of the grids under `scales` is meant")
    preflight: Literal["stop", "warn"] = Field("stop", description="what a run does that this machine cannot finish")
    scales: Annotated[dict[Name, Scale], Field(min_length=1)]
    methods: Annotated[
        dict[Name, _union("module", {name: _line_of(name) for name in names()})],
        Field(min_length=1),
    ]


def json_schema() -> dict[str, Any]:
    """The schema of config.yaml for editors: what a single value may be, and what it means."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Config.model_json_schema()


def main(arguments: argparse.Namespace) -> None:
    """Write the schema."""
    write_json(arguments.output, json_schema())


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.study.config", description=__doc__)
    parser.add_argument("--output", type=Path, default=SCHEMA)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
