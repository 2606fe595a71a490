"""What a configuration and a method's options are made of: closed and frozen models, values that know their words, and
one sentence for the first thing that is wrong. Built on pydantic; light enough for every dry run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import partial, reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from leap_repro.errors import UserError, shown

T = TypeVar("T", bound=BaseModel)
TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
"""What pydantic calls a value of a wrong type, and what that value must be."""

TAG = "kind of "
"""How the tags of a union's members begin: pydantic puts them between a place's keys, a sentence leaves them out."""
CONTRADICTION = "contradiction"
UNKNOWN_KIND = "unknown_kind"
"""The error of a union that no member fits; its message names the key that tells them apart, and its values."""


class Closed(BaseModel):
    """A mapping of known keys only, which nobody changes: a key that is not here is a typo, "1" is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    may_be_null: ClassVar[tuple[str, ...]] = ()
    """Keys that may stand without a value; of any other that would switch something off unseen."""
    renamed: ClassVar[dict[str, str]] = {}
    """{a key of an earlier version: what it is called now}"""

    @model_validator(mode="before")
    @classmethod
    def _knows_every_key(cls, value: Any) -> Any:
        unknown = sorted(set(value) - set(cls.model_fields), key=str) if isinstance(value, dict) else []
        if unknown:
            if unknown[0] in cls.renamed:
                names = {"old": unknown[0], "new": cls.renamed[unknown[0]]}
                raise PydanticCustomError("renamed_key", "{old} {new}", names)
            known = sorted(cls.model_fields)
            raise PydanticCustomError("unknown_key", "{key} {known}", {"key": unknown[0], "known": known})
        for key, part in value.items() if isinstance(value, dict) else ():
            if part is None and cls.model_fields[key].default is None and key not in cls.may_be_null:
                raise PydanticCustomError("empty_key", "{key}", {"key": key})
        return value


def contradiction(key: str, value: Any, words: str) -> PydanticCustomError:
    """The error of a validator that finds `key` at odds with another: "<key> is <value>; <words>"."""
    return PydanticCustomError(CONTRADICTION, "{sentence}", {"sentence": f"{key} is {value}; {words}"})


def _tell(words: str, value: Any, check: Callable[[Any], Any]) -> Any:
    if isinstance(value, float) and math.isnan(value):  # every comparison would let it pass
        raise PydanticCustomError("not_finite", "nan")
    try:
        value = check(value)
    except ValidationError as error:
        kind = "wrong_type" if error.errors()[0]["type"] in {*TYPES, "wrong_type"} else "not_allowed"
        raise PydanticCustomError(kind, "{words}", {"words": words}) from error
    if isinstance(value, float) and math.isinf(value):
        raise PydanticCustomError("not_finite", "inf")
    return value


def told(words: str) -> WrapValidator:
    """Ends the sentence about a value that its other annotations refuse: "<key> is <value>; <words>"."""
    return WrapValidator(partial(_tell, words))


def _distinct(words: str, least: int, values: list[Any]) -> list[Any]:
    if len(values) < least or len(set(values)) < len(values):
        raise PydanticCustomError("not_allowed", "{words}", {"words": words})
    return values


def distinct(what: str, least: int = 1) -> AfterValidator:
    """A list of at least so many that names nothing twice."""
    return AfterValidator(partial(_distinct, f"it must be a list of different {what}", least))


def _printable(value: str) -> str:
    """Marks that are not seen, such as those that turn the direction of writing, are none of a label's."""
    if not value.isprintable() or not value.strip():
        raise ValueError
    return value


MOST, MOST_OF_FILES = 10**9, 10**15
"""Beyond these no number of this project means anything: it is a typo."""
_WHOLE = "it must be an integer from {} to {}"
_ABOVE_0 = "it must be a number above 0, from {} to {}"
Positive = Annotated[int, Field(ge=1, le=MOST), told(_WHOLE.format(1, MOST))]
Count = Annotated[int, Field(ge=0, le=MOST), told(_WHOLE.format(0, MOST))]
Size = Annotated[int, Field(ge=1, le=MOST_OF_FILES), told(_WHOLE.format(1, MOST_OF_FILES))]
"""Parameters of a model, bytes or rows of a data set."""
Rate = Annotated[float, Field(ge=1e-9, le=1e9), told(_ABOVE_0.format("1e-9", "1e9"))]
LearningRate = Annotated[float, Field(ge=1e-12, le=10), told(_ABOVE_0.format("1e-12", "10"))]
Temperature = Annotated[float, Field(ge=1e-4, le=1e4), told(_ABOVE_0.format("1e-4", "1e4"))]
_FROM_0 = "it must be a number from 0 to 1e9"
Weight = Annotated[float, Field(ge=0, le=1e9), told(_FROM_0)]
Share = Annotated[float, Field(ge=0, lt=1), told("it must be a number in [0, 1)")]
Precision = Literal["float32", "bfloat16", "float16"]


Name = Annotated[
    str,
    Field(pattern="^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$"),
    told("a name may have letters, digits and . _ + - only, at most 100, because it becomes a folder"),
]
Label = Annotated[
    str,
    Field(pattern=r"^[^|\n\r]+$", max_length=200),
    AfterValidator(_printable),
    told("it must be one line of 1 to 200 printable characters without |"),
]
Some = Annotated[str, Field(min_length=1), told("it must not be empty")]


def checked(model: type[T], value: Any, place: str, root: str = "the configuration") -> T:
    """`value` as a `model`; UserError with one sentence, "<place>: …", for the first thing that is wrong.

    `root` is what the sentence calls `value` itself.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{place}: {_sentence(_details(error)[0], root)}") from error


def check_values(model: type[T], value: Any, place: str, root: str = "the configuration") -> None:
    """The same for single values only: what contradicts another may still be replaced."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        for detail in _details(error):
            if detail["type"] != CONTRADICTION:
                raise UserError(f"{place}: {_sentence(detail, root)}") from error


def contradictions(model: type[T], value: Any) -> set[tuple[int | str, ...]]:
    """The places where single values are right and contradict one another."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        return {detail["loc"] for detail in _details(error) if detail["type"] == CONTRADICTION}
    return set()


def _details(error: ValidationError) -> list[Any]:
    return error.errors(include_url=False)


def _sentence(detail: Mapping[str, Any], root: str) -> str:
    """Key, value and what is allowed."""
    place = [shown(part, str) for part in map(str, detail["loc"]) if not part.startswith(TAG)]
    key, value, context = ".".join(place) or root, detail["input"], detail.get("ctx", {})
    if place and place[-1] == "[key]":
        words = context.get("words", "it must be a text")
        return f"{'.'.join(place[:-2]) or root} has the key {shown(value, _json)}; {words}"
    if detail["type"] == "missing":
        return f"{'.'.join(place[:-1]) or root} lacks the key {place[-1]!r}"
    if detail["type"] == "unknown_key":
        return f"{key} has the unknown key {shown(context['key'])}; allowed are {context['known']}"
    if detail["type"] == "renamed_key":
        return f"{key} has the key {context['old']!r}, which is called {context['new']!r} now"
    if detail["type"] == "empty_key":
        return f"{key}.{context['key']} is null; give it a value or leave it out"
    if detail["type"] == UNKNOWN_KIND:
        return _kind_sentence(key, value, *detail["msg"].split(" ", 1))
    if detail["type"] == CONTRADICTION:
        return context["sentence"] if key == root else f"{key}.{context['sentence']}"
    return f"{key} is {_value_sentence(detail['type'], value, context, detail['msg'])}"


def _value_sentence(kind: str, value: Any, context: Mapping[str, Any], message: str) -> str:
    if kind == "wrong_type":
        return f"{shown(value)}; {context['words']}"
    if kind == "not_allowed":
        return f"{shown(value, _json)}; {context['words']}"
    if kind == "not_finite":
        return f"{value}; it must be a finite number"
    if kind == "literal_error":
        return f"{shown(value)}; allowed are {context['expected']}"
    if kind == "too_short":
        return f"{shown(value, _json)}; it must not be empty"
    if kind in TYPES:
        return f"{shown(value)}; it must be {TYPES[kind]}"
    return f"{shown(value, _json)}; {message}"


def _json(value: Any) -> str:
    return json.dumps(value, default=str)


def union(field: str, kinds: Mapping[str, type[Closed]], without: Mapping[str, type[Closed]] | None = None) -> Any:
    """Which of several models a mapping is, by the value of its key `field`; one that lacks it may be one of `without`,
    {a key that it has: its model}."""
    members = [Annotated[model, Tag(f"{TAG}{name}")] for name, model in {**kinds, **(without or {})}.items()]
    chooser = Discriminator(
        _kind_of(field, tuple(without or ())),
        custom_error_type=UNKNOWN_KIND,
        custom_error_message=f"{field} {list(kinds)}",
    )
    return Annotated[reduce(or_, members), chooser]


def _kind_of(field: str, others: tuple[str, ...]) -> Callable[[Any], str | None]:
    """A function that gives the tag of the member that a mapping is."""

    def tag(value: Any) -> str | None:
        found = value.get(field) if isinstance(value, dict) else getattr(value, field, None)
        if isinstance(value, dict) and field not in value:
            found = next((key for key in others if key in value), None)
        return f"{TAG}{found}" if isinstance(found, str) else None

    return tag


def _kind_sentence(key: str, value: Any, field: str, allowed: str) -> str:
    if not isinstance(value, dict):
        return f"{key} is {shown(value)}; it must be a mapping"
    if field not in value:
        return f"{key} lacks the key {field!r}"
    return f"{key}.{field} is {shown(value[field])}; allowed are {allowed}"
