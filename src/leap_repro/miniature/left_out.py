"""Text without some facts: those that the tasks test, or as many others.

A training text states the facts that are asked for afterwards, so what a method gains by training on it may be these
facts. Text without them shows how much that is, and text without as many others what leaving facts out does by itself.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from leap_repro.miniature.questions import task_sets
from leap_repro.miniature.world import ATTRIBUTES, World, build_world

Fact = tuple[str, str]
"""A person and the name of an attribute."""


def asked_facts() -> frozenset[Fact]:
    """Every fact that the answer to a scored question says, or follows from by a rule: all that are held out, and those
    of friends that ARC-Challenge asks for."""
    world = build_world()
    asked = {row["question"] for row in task_sets()["arc_challenge"]["test"]}
    of_friends = {
        (world.friend[person], attribute.name)
        for attribute in ATTRIBUTES
        for person in world.people
        if attribute.friend_question.format(n=person) in asked
    }
    return world.held_out | of_friends


def other_facts() -> frozenset[Fact]:
    """As many facts that no scored question needs, by a seed of their own: of each person as many as of its tested
    ones, where it has so many others, so that passages about it lose as many sentences."""
    rng, tested, people = random.Random("other-facts"), asked_facts(), build_world().people
    of_person = Counter(person for person, _ in tested)
    chosen: list[Fact] = []
    left: list[Fact] = []
    for person in people:
        others = [(person, attribute.name) for attribute in ATTRIBUTES if (person, attribute.name) not in tested]
        rng.shuffle(others)
        chosen += others[: of_person[person]]
        left += others[of_person[person] :]
    return frozenset(chosen + rng.sample(left, len(tested) - len(chosen)))


LEFT_OUT: dict[str, Callable[[], frozenset[Fact]]] = {"tested-facts": asked_facts, "other-facts": other_facts}
"""What a text can be without."""


def world_without(facts: str) -> World:
    """The world of which one of LEFT_OUT is never said; KeyError for another name."""
    return replace(build_world(), unsaid=LEFT_OUT[facts]())
