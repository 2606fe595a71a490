"""What a configuration and a method's options are made of: closed and frozen models, values that know their words, and
one sentence for the first thing that is wrong. Built on pydantic; light enough for every dry run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from leap_repro.errors import UserError

T = TypeVar("T", bound=BaseModel)
TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
"""What pydantic calls a value of a wrong type, and what that value must be."""

TAG = "kind of "
"""How the tags of a union's members begin: pydantic puts them between a place's keys, a sentence leaves them out."""
UNKNOWN_KIND = "unknown_kind"
"""The error of a union that no member fits; its message names the key that tells them apart, and its values."""


class Closed(BaseModel):
    """A mapping of known keys only, which nobody changes: a key that is not here is a typo, "1" is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _knows_every_key(cls, value: Any) -> Any:
        unknown = sorted(set(value) - set(cls.model_fields), key=str) if isinstance(value, dict) else []
        if unknown:
            known = sorted(cls.model_fields)
            raise PydanticCustomError("unknown_key", "{key} {known}", {"key": unknown[0], "known": known})
        return value


def contradiction(key: str, value: Any, words: str) -> PydanticCustomError:
    """The error of a validator that finds `key` at odds with another: "<key> is <value>; <words>"."""
    return PydanticCustomError("contradiction", "{sentence}", {"sentence": f"{key} is {value}; {words}"})


def _tell(words: str, value: Any, check: Callable[[Any], Any]) -> Any:
    if isinstance(value, float) and math.isnan(value):  # every comparison would let it pass
        raise PydanticCustomError("not_finite", "nan")
    try:
        value = check(value)
    except ValidationError as error:
        kind = "wrong_type" if error.errors()[0]["type"] in TYPES else "not_allowed"
        raise PydanticCustomError(kind, "{words}", {"words": words}) from error
    if isinstance(value, float) and math.isinf(value):
        raise PydanticCustomError("not_finite", "inf")
    return value


def told(words: str) -> WrapValidator:
    """Ends the sentence about a value that its other annotations refuse: "<key> is <value>; <words>"."""
    return WrapValidator(partial(_tell, words))


def _distinct(words: str, values: list[Any]) -> list[Any]:
    if not values or len(set(values)) < len(values):
        raise PydanticCustomError("not_allowed", "{words}", {"words": words})
    return values


def distinct(what: str) -> AfterValidator:
    """A list that is not empty and names nothing twice."""
    return AfterValidator(partial(_distinct, f"it must be a list of different {what}"))


Positive = Annotated[int, Field(ge=1), told("it must be an integer of at least 1")]
Count = Annotated[int, Field(ge=0), told("it must be an integer of at least 0")]
Rate = Annotated[float, Field(gt=0), told("it must be a number above 0")]
Weight = Annotated[float, Field(ge=0), told("it must be a number of at least 0")]
Share = Annotated[float, Field(ge=0, lt=1), told("it must be a number in [0, 1)")]
Precision = Literal["float32", "bfloat16", "float16"]


def checked(model: type[T], value: Any, place: str, root: str = "the configuration") -> T:
    """`value` as a `model`; UserError with one sentence, "<place>: …", for the first thing that is wrong.

    `root` is what the sentence calls `value` itself.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{place}: {sentence(error, root)}") from error


def sentence(error: ValidationError, root: str) -> str:
    """Key, value and what is allowed, of the first of an error's details."""
    detail = error.errors(include_url=False)[0]
    place = [str(part) for part in detail["loc"] if not (isinstance(part, str) and part.startswith(TAG))]
    key, value, context = ".".join(place) or root, detail["input"], detail.get("ctx", {})
    if place and place[-1] == "[key]":
        return f"{'.'.join(place[:-2]) or root} has the key {_json(value)}; {context['words']}"
    if detail["type"] == "missing":
        return f"{'.'.join(place[:-1]) or root} lacks the key {place[-1]!r}"
    if detail["type"] == "unknown_key":
        return f"{key} has the unknown key {context['key']!r}; allowed are {context['known']}"
    if detail["type"] == UNKNOWN_KIND:
        return _kind_sentence(key, value, *detail["msg"].split(" ", 1))
    if detail["type"] == "contradiction":
        return context["sentence"] if key == root else f"{key}.{context['sentence']}"
    return f"{key} is {_value_sentence(detail['type'], value, context, detail['msg'])}"


def _value_sentence(kind: str, value: Any, context: Mapping[str, Any], message: str) -> str:
    if kind == "wrong_type":
        return f"{value!r}; {context['words']}"
    if kind == "not_allowed":
        return f"{_json(value)}; {context['words']}"
    if kind == "not_finite":
        return f"{value}; it must be a finite number"
    if kind == "literal_error":
        return f"{value!r}; allowed are {context['expected']}"
    if kind == "too_short":
        return f"{_json(value)}; it must not be empty"
    return f"{value!r}; it must be {TYPES[kind]}" if kind in TYPES else f"{_json(value)}; {message}"


def _json(value: Any) -> str:
    return json.dumps(value, default=str)


def kind_tag(name: str) -> str:
    """The tag of the member of a union whose discriminating key has the value `name`."""
    return f"{TAG}{name}"


def kind_of(field: str) -> Callable[[Any], str | None]:
    """Which member of a union a mapping is: the value of its key `field`."""

    def tag(value: Any) -> str | None:
        found = value.get(field) if isinstance(value, dict) else getattr(value, field, None)
        return kind_tag(found) if isinstance(found, str) else None

    return tag


def _kind_sentence(key: str, value: Any, field: str, allowed: str) -> str:
    if not isinstance(value, dict):
        return f"{key} is {value!r}; it must be a mapping"
    if field not in value:
        return f"{key} lacks the key {field!r}"
    return f"{key}.{field} is {value[field]!r}; allowed are {allowed}"
