"""Roles of text and of token shards: what each is for, and which text it is of.

A role on one of the scale's other texts (`data.texts`) has that text's name behind it: "calibration-fact-free".
"""

from __future__ import annotations

SHARDS = {
    "calibration": ("calibration", "calibration", "windows"),
    "held_out": ("calibration", "held_out", "windows"),
    "mask_training": ("mask_training", "mask_training", "packed"),
    "mask_training_grouped": ("mask_training", "mask_training", "grouped"),
}
"""Token shards by role: the names of their text and of their sizes, and how they are cut: a sample of windows, or all
packed."""
TRAINING_SHARDS = ("mask_training", "mask_training_grouped")


def role_on(role: str, text: str | None) -> str:
    """A role on another text, or on the usual one."""
    return f"{role}-{text}" if text else role


def parts_of(role: str) -> tuple[str, str]:
    """The role on the usual text, and the name of the other text, or ""."""
    usual, _, text = role.partition("-")
    return usual, text


def shard_of(role: str) -> tuple[str, str, str]:
    """What SHARDS says of a role, on whatever text."""
    usual, text = parts_of(role)
    read, sizes, recipe = SHARDS[usual]
    return role_on(read, text), sizes, recipe


def trains_on(role: str) -> bool:
    """Whether a shard is what masks are trained on."""
    return parts_of(role)[0] in TRAINING_SHARDS
