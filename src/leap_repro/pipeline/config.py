"""What the configuration may hold: every key with its type, bounds and meaning. Every level is closed: other keys are
typos.

`python tools/config_schema.py` writes the JSON schema that editors read. What lines take over from others is the work
of `inheritance.py`; what keys must be to one another is checked in `cross_checks.py`. No heavy imports: every dry run
pays for them.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, create_model, model_validator
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError

from leap_repro.checked import (
    MOST,
    UNKNOWN_KIND,
    Closed,
    Label,
    Name,
    Positive,
    Precision,
    contradiction,
    distinct,
    told,
    union,
)
from leap_repro.errors import UserError
from leap_repro.pipeline.fingerprint import closure
from leap_repro.pipeline.sources import Model, Tasks, Text
from leap_repro.prune.declaration import Options
from leap_repro.prune.loading import is_path
from leap_repro.prune.methods import declaration, known_names, module_of, names

Length = Annotated[int, Field(ge=2, le=MOST), told(f"it must be an integer of at least 2 tokens, {MOST} at most")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), told("a seed must be an integer from 0 to 4294967295")]
LEAST_SPARSITY = 1e-6


def _drops_something(value: float) -> float:
    """A sparsity is written into paths, as a decimal."""
    if 0 < value < LEAST_SPARSITY:
        raise ValueError
    return value


Sparsity = Annotated[
    float,
    Field(ge=0, lt=1),
    AfterValidator(_drops_something),
    told("a sparsity must be a number in [0, 1), either 0 or at least 0.000001"),
]
Gigabytes = Annotated[float, Field(ge=1, le=1e5), told("it must be a number of GB, from 1 to 100000")]
Sparsities = Annotated[list[Sparsity], distinct("sparsities")]
Methods = Annotated[list[str], distinct("method names")]
"""Names of lines and of groups of lines."""


class OtherText(Closed):
    """What methods read in place of the usual text, where their line has its name under `text`."""

    calibration: Text
    mask_training: Text | None = None


class Data(Closed):
    """Where text and questions come from."""

    extends: str | None = Field(None, description="a scale whose data these are, but for what stands here")
    calibration: Text
    mask_training: Text | None = None
    perplexity: Text
    tasks: Tasks
    texts: dict[Name, OtherText] = Field({}, description="by name: other text, for lines with this name under `text`")


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
    perplexity_windows: Annotated[int, Field(ge=2, le=MOST), told(f"it must be an integer from 2 to {MOST}")] | None = (
        Field(None, description="score the first so many windows of each length; without it all")
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
        None,
        description="one text for all seeds, of the calibration text, behind the first seed's calibration sample: for "
        "the option `held_out_evaluations`",
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
    gpu_memory: Gigabytes | None = Field(
        None, description="GB of each GPU: what trainings choose by where they have `auto` in their options"
    )
    cluster: Cluster = Cluster.model_validate({})
    methods: Methods
    extended: Annotated[list[str], distinct("method names", least=0)] = Field(
        [], description="run beside `methods` by the target extended"
    )
    evidence: Evidence | None = Field(None, description="run by the target evidence")
    sparsities: Sparsities
    seeds: Annotated[list[Seed], distinct("seeds")]
    options: dict[str, dict[str, Any]] = Field(
        {}, description="by method or group: this scale's, laid over the method's own and taken over with them"
    )
    gpus: dict[str, Positive] = Field({}, description="by method or group: this scale's, instead of the method's own")
    only_models: dict[str, Annotated[list[str], distinct("model names")]] = Field(
        {}, description="by method or group: the models that it runs on, where not on all"
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


class AnyLine(Closed):
    """What every line of `methods:` may hold, whatever its module."""

    may_be_null = ("warm_start",)
    extends: str | None = Field(None, description="the line from which it takes over all that it does not say itself")
    hardens: str | None = Field(
        None, description="the line whose logits it hardens by another rule; it takes over everything else of it"
    )
    label: Label | None = None
    sparsities: Sparsities | None = None
    warm_start: str | None = None
    pattern_start: str | None = None
    parent: str | None = None
    budget_from: str | None = None
    selector: str | None = None
    text: Name | None = Field(
        None, description="one of the scale's `data.texts`, which it is calibrated or trained on; without it the usual"
    )
    hardening: Literal["exact", "threshold"] = "exact"
    variant_of: str | None = Field(None, description="the line that it varies, if not the one that it extends")
    changes: Label | None = Field(None, description="what the variant changes, in words, for the table of variants")
    groups: Annotated[list[Name], distinct("names of groups", least=0)] = Field(
        [], description="names by which grids, and the keys of a scale that go by method, may call it with others"
    )
    at: dict[str, dict[str, Any]] = Field({}, description="by scale: options of this line there")
    gpus: Positive = Field(1, description="processes, each on a GPU of its own, that train one cell together")

    @model_validator(mode="after")
    def _changes_something(self) -> AnyLine:
        if self.changes is not None and not (self.variant_of or self.extends or self.hardens):
            one = "only a line with extends, hardens or variant_of has changes"
            raise contradiction("changes", repr(self.changes), one)
        return self


class Line(AnyLine):
    """A line that says its module, as every line does once it is resolved."""

    module: str
    options: Options = Options()


class Extending(AnyLine):
    """A line that takes over its module, and so its kind of options, from another."""

    options: dict[str, Any] = Field({}, description="laid over those of that line")


WITHOUT_MODULE = {"extends": Extending, "hardens": Extending}
"""{a key by which a line takes over another's module: its kind}"""


def _line_of(module: str) -> type[Line]:
    """A line with the options of its method; UserError if the method cannot be had, or not all its code is tracked."""
    options = declaration(module).options
    if module not in names():
        closure(module_of(module))
    return _line_with(module, options)


@cache
def _line_with(module: str, options: type[Options]) -> type[Line]:
    own: Any = Literal[module]  # pyright: ignore[reportInvalidTypeForm]  # known only when a line names it
    return create_model(
        f"{module}_line", __base__=Line, module=(own, ...), options=(options, options.model_construct())
    )


def _as_its_kind(line: Any) -> AnyLine:
    """The line as its own module wants it: of all methods only those are loaded that a line names."""
    given = line if isinstance(line, dict) else {}
    without = [kind for key, kind in WITHOUT_MODULE.items() if key in given and "module" not in given]
    if without:
        return without[0].model_validate(line)
    module = given.get("module")
    if not isinstance(module, str) or not (is_path(module) or module in known_names()):
        allowed = f"{[*known_names()]}, or the path of a method's file (.py)"
        raise PydanticCustomError(UNKNOWN_KIND, "{words}", {"words": f"module {allowed}"})
    try:
        model = _line_of(module)
    except UserError as error:
        raise contradiction("module", repr(module), str(error)) from error
    return model.model_validate(line)


class Config(Closed):
    """config.yaml and what lies over it."""

    scale: str = Field(description="which of the grids under `scales` is meant")
    preflight: Literal["stop", "warn"] = Field("stop", description="what a run does that this machine cannot finish")
    scales: Annotated[dict[Name, Scale], Field(min_length=1)]
    methods: Annotated[dict[Name, Annotated[Line, PlainValidator(_as_its_kind)]], Field(min_length=1)]


class _Plain(GenerateJsonSchema):
    """A key needs no title that repeats it."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """The schema of config.yaml for editors: what a single value may be, and what it means.

    Several files make a configuration, so that none need have every key.
    """
    own_file = create_model(
        "file_line",
        __base__=Line,
        module=(Annotated[str, Field(pattern=r"\.py$")], ...),
        options=(dict[str, Any], {}),
    )
    lines = union("module", {name: _line_of(name) for name in names()} | {"file": own_file}, without=WITHOUT_MODULE)
    methods: Any = dict[Name, lines]  # pyright: ignore[reportInvalidTypeForm]  # a union made at run time
    whole = create_model("Config", __base__=Config, __doc__=Config.__doc__, methods=(methods, Field(min_length=1)))
    schema = whole.model_json_schema(schema_generator=_Plain)
    for partial in (schema, schema["$defs"]["Scale"], schema["$defs"]["Data"]):
        del partial["required"]
    return {"$schema": GenerateJsonSchema.schema_dialect} | schema
