"""The keys of the configuration, each with its type, bounds and meaning. Any other key is refused as a typo.

`python tools/config_schema.py` writes the JSON schema that editors read. `inheritance.py` resolves what entries
inherit, and `cross_checks.py` checks keys against each other. No heavy imports: every dry run pays for them.
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

Length = Annotated[int, Field(ge=2, le=MOST), told(f"it must be an integer from 2 to {MOST}")]
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
"""Names of methods and of groups of methods."""


class OtherText(Closed):
    """A text that replaces the usual one for each method whose `text` names it."""

    calibration: Text
    mask_training: Text | None = None


class Data(Closed):
    """Where text and questions come from."""

    extends: str | None = Field(None, description="the scale whose data are used, except for the keys given here")
    calibration: Text
    mask_training: Text | None = None
    perplexity: Text
    tasks: Tasks
    texts: dict[Name, OtherText] = Field({}, description="other texts by name, for methods whose `text` has that name")


class Shard(Closed):
    """How many token sequences are cut from a text, and how long each is."""

    sequences: Positive
    length: Length


class Calibration(Shard):
    """The calibration sample of layer-wise methods."""

    draw: Literal["shuffled", "as_released"] = Field(
        "shuffled",
        description="shuffled: documents in seeded order, each once; as_released: documents drawn with replacement by "
        "Python's generator",
    )


class Evaluation(Closed):
    """How pruned models are scored."""

    perplexity_lengths: Annotated[list[Length], distinct("lengths in tokens")]
    perplexity_windows: Annotated[int, Field(ge=2, le=MOST), told(f"it must be an integer from 2 to {MOST}")] | None = (
        Field(None, description="number of windows of each length to score, from the first; default: all")
    )
    questions: Positive | None = Field(
        None, description="number of questions of each task, the same seeded sample in every cell; default: all"
    )
    batch_size: Positive


class Evidence(Closed):
    """The grid `evidence`: the scale's `methods` with each of these seeds, and further methods."""

    seeds: Annotated[list[Seed], distinct("seeds")] = Field(
        description="seeds of calibration samples and trainings; a method without random draws runs with the first only"
    )
    curve: Annotated[list[Sparsity], distinct("sparsities", least=0)] = Field(
        [], description="further sparsities of `methods`, with the first seed, for the accuracy figure"
    )
    methods: Annotated[list[str], distinct("method names", least=0)] = Field(
        [], description="further methods that run with every seed"
    )
    once: Annotated[list[str], distinct("method names", least=0)] = Field(
        [], description="further methods that run with the first seed only"
    )


class Cluster(Closed):
    """What jobs request from a cluster; unused in local runs."""

    gpus: Annotated[int, Field(ge=0, le=1), told("it must be 0 or 1")] = Field(
        0,
        description="1: a job that computes on a GPU requests one, and a training requests the number in its method's "
        "`gpus`; 0: no job requests a GPU",
    )
    gpus_per_node: Positive | None = Field(
        None, description="GPUs of a node; a training on more GPUs spans several nodes; default: one node has all"
    )
    partition: Name | None = None
    gpu_partition: Name | None = None
    max_runtime: Positive | None = Field(
        None, description="the partition's limit in minutes; a training that reaches it resumes from its checkpoint"
    )


class Scale(Closed):
    """One grid: which models, data, methods and sizes."""

    models: Annotated[dict[Name, Model], Field(min_length=1)]
    data: Data
    calibration: Calibration
    mask_training: Shard | None = None
    held_out: Shard | None = Field(
        None,
        description="held-out sequences for the option `held_out_evaluations`, the same for all seeds; they follow the "
        "first seed's calibration sample in the calibration text",
    )
    evaluation: Evaluation
    clean_up: Annotated[list[Literal["tokens", "logits"]], distinct("kinds of files", least=0)] = Field(
        [], description="files of a model to delete once all its cells are collected (docs/plan.md says what is lost)"
    )
    dtype: Precision = "float32"
    bits: Literal["portable", "native"] | None = Field(
        None,
        description="portable: the same results on every processor with AVX2, in float32 on the CPU; native: each "
        "processor's own kernels, which are faster; default: portable with float32, native with 16-bit types",
    )
    threads: Positive
    gpu_memory: Gigabytes | None = Field(
        None, description="memory of each GPU in GB, by which trainings choose the options that are `auto`"
    )
    cluster: Cluster = Cluster.model_validate({})
    methods: Methods
    extended: Annotated[list[str], distinct("method names", least=0)] = Field(
        [], description="methods that the target `extended` runs in addition to `methods`"
    )
    evidence: Evidence | None = Field(None, description="the grid that the target `evidence` runs")
    sparsities: Sparsities
    seeds: Annotated[list[Seed], distinct("seeds")]
    options: dict[str, dict[str, Any]] = Field(
        {},
        description="options at this scale, by method or group; they override the method's own, and entries that "
        "extend the method inherit them",
    )
    gpus: dict[str, Positive] = Field(
        {}, description="number of GPUs of a training at this scale, by method or group, instead of the method's own"
    )
    only_models: dict[str, Annotated[list[str], distinct("model names")]] = Field(
        {}, description="the models that a method or group runs on, if not on all"
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
    """The keys that every entry of `methods:` may have, whatever its module."""

    may_be_null = ("warm_start",)
    extends: str | None = Field(None, description="the entry from which it inherits everything that it does not set")
    hardens: str | None = Field(
        None, description="the entry whose logits it hardens by another rule; it inherits everything else"
    )
    label: Label | None = None
    sparsities: Sparsities | None = None
    warm_start: str | None = None
    pattern_start: str | None = None
    parent: str | None = None
    budget_from: str | None = None
    selector: str | None = None
    text: Name | None = Field(
        None, description="one of the scale's `data.texts` to calibrate or train on; default: the usual text"
    )
    hardening: Literal["exact", "threshold"] = "exact"
    variant_of: str | None = Field(None, description="the entry that it varies, if not the one that it extends")
    changes: Label | None = Field(None, description="what the variant changes, in words, for the table of variants")
    groups: Annotated[list[Name], distinct("names of groups", least=0)] = Field(
        [], description="groups that it belongs to; grids, and a scale's keys by method, may name a group"
    )
    at: dict[str, dict[str, Any]] = Field({}, description="its options at single scales: {scale: options}")
    gpus: Positive = Field(1, description="number of processes, each on its own GPU, that train one cell together")

    @model_validator(mode="after")
    def _changes_something(self) -> AnyLine:
        if self.changes is not None and not (self.variant_of or self.extends or self.hardens):
            one = "only an entry with extends, hardens or variant_of may have it"
            raise contradiction("changes", repr(self.changes), one)
        return self


class Line(AnyLine):
    """An entry that names its module, as every entry does once it is resolved."""

    module: str
    options: Options = Options()


class Extending(AnyLine):
    """An entry that inherits its module, and so its kind of options, from another."""

    options: dict[str, Any] = Field({}, description="options that override those of that entry")


WITHOUT_MODULE = {"extends": Extending, "hardens": Extending}
"""{a key by which an entry inherits another's module: its kind}"""


def _line_of(module: str) -> type[Line]:
    """An entry with the options of its method; UserError if the method cannot be loaded, or not all its code is
    tracked."""
    options = declaration(module).options
    if module not in names():
        closure(module_of(module))
    return _line_with(module, options)


@cache
def _line_with(module: str, options: type[Options]) -> type[Line]:
    own: Any = Literal[module]  # pyright: ignore[reportInvalidTypeForm]  # known only when an entry names it
    return create_model(
        f"{module}_line", __base__=Line, module=(own, ...), options=(options, options.model_construct())
    )


def _as_its_kind(line: Any) -> AnyLine:
    """The entry, checked by its own module; only methods that an entry names are loaded."""
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
    """config.yaml and the files that are merged over it."""

    scale: str = Field(description="which of the grids under `scales` runs")
    preflight: Literal["stop", "warn"] = Field(
        "stop",
        description="what to do with a run that this machine cannot finish: stop before the first job, or warn and "
        "start",
    )
    scales: Annotated[dict[Name, Scale], Field(min_length=1)]
    methods: Annotated[dict[Name, Annotated[Line, PlainValidator(_as_its_kind)]], Field(min_length=1)]


class _Plain(GenerateJsonSchema):
    """A key needs no title that repeats it."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """The JSON schema of config.yaml for editors: types, bounds and meaning of single values.

    A configuration is merged from several files, so no file needs every key.
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
