"""Odd values, and changes of odd places in what JSON and YAML hold, drawn by Hypothesis; what damage does to bytes."""

import copy

from hypothesis import strategies as st

SINGLE = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4)
)
"""What YAML has."""
JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
SPECIAL = [
    10**40,
    2**62,
    1e-300,
    -0.0,
    -1,
    0,
    1,
    2,
    0.5,
    "0.5",
    "",
    " ",
    "../x",
    "/x",
    "x" * 5000,
    "\u202e",
    "1\n",
    "\0",
]
DELETE, RENAME, COPY, REPLACE = "delete", "rename", "copy", "replace"
KINDS = (DELETE, RENAME, COPY, REPLACE, REPLACE, REPLACE)


def values(single, special=()):
    """Single values and small lists and mappings of them; `special` are more likely than others."""
    known = st.sampled_from([*SPECIAL, *special]) | single
    return st.recursive(
        known,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=4,
    )


def places(value, above=()):
    """The path of everything in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from places(inner, (*above, key))


def at(value, place):
    """What stands there."""
    for key in place:
        value = value[key]
    return value


def change(data, value, new):
    """Change one place of `value`, which is the caller's own; `new` are the values put there. Returns the place."""
    known = list(places(value))
    place, kind = data.draw(st.sampled_from(known)), data.draw(st.sampled_from(KINDS))
    inside, key = at(value, place[:-1]), place[-1]
    if kind == DELETE:
        del inside[key]
    elif kind == RENAME and isinstance(inside, dict):
        inside["other"] = inside.pop(key)
    elif kind == COPY:
        inside[key] = copy.deepcopy(at(value, data.draw(st.sampled_from(known))))
    else:
        inside[key] = data.draw(new)
    return place


def damaged(data, whole):
    """The bytes with one flipped bit, cut short, or with a few others in place of some."""
    kind = data.draw(st.sampled_from(["flip", "flip", "cut", "put"]))
    start = data.draw(st.integers(0, len(whole) - 1))
    if kind == "flip":
        return whole[:start] + bytes([whole[start] ^ 1 << data.draw(st.integers(0, 7))]) + whole[start + 1 :]
    if kind == "cut":
        return whole[:start]
    return whole[:start] + data.draw(st.binary(max_size=4)) + whole[start + data.draw(st.integers(0, 4)) :]
