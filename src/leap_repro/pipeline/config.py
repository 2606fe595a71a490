"""What config.yaml may hold: every key with its type, bounds and meaning. Every level is closed: other keys are typos.

`python tools/config_schema.py` writes the JSON schema that editors read. What keys must be to one another is
checked in `grid.py`. No heavy imports: every dry run pays for them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator
from pydantic.json_schema import GenerateJsonSchema

from leap_repro.checked import Closed, Label, Name, Positive, Precision, Share, contradiction, distinct, told, union
from leap_repro.cli import run_stage
from leap_repro.pipeline.sources import Model, Tasks, Text
from leap_repro.prune.declaration import Options
from leap_repro.prune.methods import declaration, names
from leap_repro.store.atomic import write_json

SCHEMA = Path("workflow/schemas/config.schema.json")


Length = Annotated[int, Field(ge=2), told("it must be an integer of at least 2 tokens")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), told("a seed must be an integer from 0 to 4294967295")]
Sparsity = Annotated[Share, told("a sparsity must be a number in [0, 1)")]
Sparsities = Annotated[list[Sparsity], distinct("sparsities")]
Methods = Annotated[list[str], distinct("method names")]


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


class Calibration(Shard):
    """How the layer-wise methods' sample is drawn."""

    draw: Literal["shuffled", "as_released"] = Field(
        "shuffled",
        description="documents in seeded order, each once; as_released: with replacement, by Python's generator",
    )


class Evaluation(Closed):
    """How cells are scored."""

    perplexity_lengths: Annotated[list[Length], distinct("lengths in tokens")]
    perplexity_windows: Annotated[int, Field(ge=2), told("it must be an integer of at least 2")] | None = Field(
        None, description="score the first so many windows of each length; without it all"
    )
    questions: Positive | None = Field(
        None, description="ask no more questions of each task, the same seeded sample in every cell; without it all"
    )
    batch_size: Positive


class Evidence(Closed):
    """What the grid `evidence` runs beside the scale's own `methods`, which it repeats with each of its seeds."""

    seeds: Annotated[list[Seed], distinct("seeds")] = Field(
        description="of calibration samples and trainings; what nothing is drawn for runs with the first"
    )
    curve: Annotated[list[Sparsity], distinct("sparsities", least=0)] = Field(
        [], description="further sparsities of `methods`, with the first seed, for the figure of accuracy"
    )
    methods: Annotated[list[str], distinct("method names", least=0)] = Field(
        [], description="further methods, with every seed"
    )
    once: Annotated[list[str], distinct("method names", least=0)] = Field(
        [], description="further methods, with the first seed"
    )


class Cluster(Closed):
    """What jobs ask a cluster for; unused in local runs."""

    gpus: Annotated[int, Field(ge=0, le=1), told("it must be 0 or 1")] = Field(
        0, description="1: a job that computes on a GPU asks for one, a training for as many as its method's `gpus`"
    )
    gpus_per_node: Positive | None = Field(
        None, description="a training on more of them goes over several nodes; without it all are on one"
    )
    partition: Name | None = None
    gpu_partition: Name | None = None
    max_runtime: Positive | None = Field(
        None, description="minutes, the partition's limit; a learned gate that hits it goes on from its checkpoint"
    )


class Scale(Closed):
    """One grid: which models, data, methods and sizes."""

    models: Annotated[dict[Name, Model], Field(min_length=1)]
    data: Data
    calibration: Calibration
    mask_training: Shard | None = None
    held_out: Shard | None = Field(
        None, description="of the calibration text, what no calibration sample has: for a training's option `looks`"
    )
    evaluation: Evaluation
    clean_up: Annotated[list[Literal["tokens", "logits"]], distinct("kinds of files", least=0)] = Field(
        [], description="what is deleted of a model once all its cells are collected (docs/plan.md says what is lost)"
    )
    dtype: Precision = "float32"
    bits: Literal["portable", "native"] | None = Field(
        None,
        description="portable: the same results on every processor with AVX2, in float32 on the CPU; native: each "
        "processor's own kernels, faster; without it portable in float32, native in 16 bits",
    )
    threads: Positive
    cluster: Cluster = Cluster()
    methods: Methods
    extended: Annotated[list[str], distinct("method names", least=0)] = Field(
        [], description="run beside `methods` by the target extended"
    )
    evidence: Evidence | None = Field(None, description="run by the target evidence")
    sparsities: Sparsities
    seeds: Annotated[list[Seed], distinct("seeds")]
    options: dict[str, dict[str, Any]] = Field({}, description="by method: this scale's, laid over the method's own")
    gpus: dict[str, Positive] = Field({}, description="by method: this scale's, instead of the method's own")
    only_models: dict[str, Annotated[list[str], distinct("model names")]] = Field(
        {}, description="by method: the models that it runs on, where not on all"
    )

    @property
    def kernels(self) -> str:
        """`bits`, or what follows from the type where the config does not say."""
        return self.bits or ("portable" if self.dtype == "float32" else "native")

    @model_validator(mode="after")
    def _portable_in_float32(self) -> Scale:
        if self.bits == "portable" and self.dtype != "float32":
            raise contradiction("bits", "portable", f"dtype must be float32 for that, not {self.dtype}")
        return self


class Line(Closed):
    """One line of `methods:`."""

    may_be_null = ("warm_start",)
    module: str
    label: Label | None = None
    sparsities: Sparsities | None = None
    warm_start: str | None = None
    pattern_start: str | None = None
    parent: str | None = None
    budget_from: str | None = None
    selector: str | None = None
    hardening: Literal["exact", "threshold"] = "exact"
    variant_of: str | None = None
    changes: Label | None = None
    gpus: Positive = Field(1, description="processes, each on a GPU of its own, that train one cell together")
    options: Options = Options()

    @model_validator(mode="after")
    def _changes_something(self) -> Line:
        if self.changes is not None and self.variant_of is None:
            raise contradiction("changes", repr(self.changes), "only a line with variant_of has changes")
        return self


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
        dict[Name, union("module", {name: _line_of(name) for name in names()})],
        Field(min_length=1),
    ]


class _Plain(GenerateJsonSchema):
    """A key needs no title that repeats it."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """The schema of config.yaml for editors: what a single value may be, and what it means."""
    schema = Config.model_json_schema(schema_generator=_Plain)
    return {"$schema": GenerateJsonSchema.schema_dialect} | schema


def main(arguments: argparse.Namespace) -> None:
    """Write the schema."""
    write_json(arguments.output, json_schema())


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python tools/config_schema.py", description=__doc__)
    parser.add_argument("--output", type=Path, default=SCHEMA)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
