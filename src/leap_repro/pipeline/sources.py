"""Sources of models, text and questions in the configuration: bundled, a path on this machine, or the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from leap_repro.checked import Closed, Label, Name, Positive, Share, Size, Some, contradiction, distinct, told, union
from leap_repro.miniature.text import WITHOUT_PAGES

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$"), told("it must be 64 hexadecimal digits")]
HubId = Annotated[
    str,
    Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"),
    told("it must be the id of a repository on the hub, <owner>/<name>"),
]
Revision = Annotated[
    str,
    Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"),
    told("it must be a commit of 40 digits, a branch or a tag"),
]
Definition = Annotated[
    str,
    Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9_-]+)*[.]yaml$"),
    told("it must be the path of a task's YAML below lm_eval/tasks, such as super_glue/boolq/default.yaml"),
]
Expected = Annotated[
    dict[str, Size] | None, Field(description="sizes that the fetched files must have; others are refused")
]
Splits = Annotated[dict[Name, Some], Field(min_length=1)]


class Shape(Closed):
    """Sizes of a decoder with a gated MLP and without experts, by their names in the model's config.json."""

    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive
    head_dim: Positive | None = Field(None, description="not needed where it is hidden_size / num_attention_heads")
    vocab_size: Positive


class _Model(Closed):
    may_be_null = ("shape",)
    shape: Shape | None = Field(
        None,
        description="sizes from its config.json, by which jobs are planned before it is fetched; others are refused",
    )
    parameters: Size | None = Field(
        None,
        description="approximate number of parameters, for planning; not needed with `expect`, or if the weights are "
        "here",
    )
    allow_dense_share: Share | None = Field(
        None,
        description="share of a decoder block's weights that parameters which are not pruned may have, instead of 0.01",
    )
    stands_for: Label | None = Field(
        None, description="the model's name in the published tables, whose rows are shown beside ours"
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

    may_be_null = ("expect", "shape")
    source: Literal["hub"]
    id: HubId
    revision: Revision
    expect: Expected = None
    gated: bool = Field(
        False,
        description="true: only accounts that accepted its terms may download it, so no run starts without a token",
    )


class BundledText(Closed):
    """A part of the miniature's text."""

    source: Literal["bundled"]
    split: Literal["calibration", "mask_training", "test", "train"]
    without: Literal["tested-facts", "other-facts"] | None = Field(
        None, description="a separate text that lacks the facts that questions test, or as many other facts"
    )

    @model_validator(mode="after")
    def _is_read_by_methods(self) -> BundledText:
        if self.without is not None and self.split not in WITHOUT_PAGES:
            one = f"without is {self.without}, and only {sorted(WITHOUT_PAGES)} exist without it"
            raise contradiction("split", self.split, one)
        return self


class PathText(Closed):
    """A file on this machine: parquet with a column text, JSON lines with a key text, or plain text."""

    source: Literal["path"]
    path: Some


class HubText(Closed):
    """Files of a data set on the hub at a pinned commit."""

    may_be_null = ("expect",)
    source: Literal["hub"]
    id: HubId
    revision: Revision
    files: Annotated[list[Some], distinct("file names, or patterns with * ? [], in the repository")]
    expect: Expected = None


class HubSet(Closed):
    """One task set on the hub: a parquet file for each split."""

    may_be_null = ("expect",)
    id: HubId
    revision: Revision
    files: Splits
    split_by: str | None = Field(None, description="the column by which the files are split into one set per value")
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
            raise contradiction(on_hub[0], repr(getattr(self, on_hub[0])), "a task with a path must not have it")
        if self.path is not None and self.expect is not None:
            raise contradiction("expect", repr(self.expect), "only a task from the hub may have it")
        if self.path is None and len(on_hub) < 3:
            raise contradiction("path", "missing", "a task has either a path, or id, revision and files")
        return self


class _Tasks(Closed):
    evaluation_tokens: ClassVar[int | None] = None
    """Tokens that an evaluation reads, text included, where sets and text are always the same; None: to be counted."""
    further: dict[Name, FurtherTask] = Field({}, description="tasks in addition to the six")


class BundledTasks(_Tasks):
    """The six task sets of the miniature."""

    evaluation_tokens = 500_000
    source: Literal["bundled"]


class PathTasks(_Tasks):
    """A folder with <set>/<split>.parquet."""

    source: Literal["path"]
    path: Some


class HubTasks(_Tasks):
    """Task sets on the hub."""

    source: Literal["hub"]
    sets: Annotated[dict[Name, HubSet], Field(min_length=1)]


if TYPE_CHECKING:  # no checker follows a union that is made at run time
    Model = BundledModel | PathModel | HubModel
    Text = BundledText | PathText | HubText
    Tasks = BundledTasks | PathTasks | HubTasks
else:
    Model = union("source", {"bundled": BundledModel, "path": PathModel, "hub": HubModel})
    Text = union("source", {"bundled": BundledText, "path": PathText, "hub": HubText})
    Tasks = union("source", {"bundled": BundledTasks, "path": PathTasks, "hub": HubTasks})
