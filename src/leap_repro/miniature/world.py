"""The miniature's world: people, six facts about each, the rules behind the facts, and who is whose friend.

Everything that the miniature reads or asks comes from here, so one seed fixes the text, the questions and, through the
training recipe, the models. A *fact* is (person, attribute) -> value; a *rule* sends a value to one of four classes;
`friend` is a permutation of the people. Every third fact is *held out*: the text states it plainly, but no training
passage asks about it or derives from it. The test questions are about those facts only. (A training question about a
friend may have a held-out fact as its answer; the question itself is never one of the test's.)
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

WORLD_SEED = 2605
PEOPLE = 216
ONSETS = ["B", "D", "F", "G", "H", "J", "K", "L", "M", "N", "P", "R", "S", "T", "V", "Z"]
MIDDLES = ["al", "an", "ar", "el", "en", "er", "il", "in", "ol", "or", "ul", "un"]
ENDINGS = ["a", "da", "do", "ga", "ko", "la", "mi", "na", "ra", "so", "ta", "va"]


@dataclass(frozen=True)
class Attribute:
    """One kind of fact and the words for it: {n} a person, {v} the value, {c} the value's class."""

    name: str
    mmlu_subject: str
    classes: dict[str, tuple[str, ...]]
    statements: tuple[str, ...]
    rule: str
    derived: str
    question: str
    friend_question: str
    class_question: str
    goal: str
    solution: str
    class_solution: str
    action: str
    class_action: str

    @cached_property
    def values(self) -> tuple[str, ...]:
        return tuple(value for values in self.classes.values() for value in values)

    def class_of(self, value: str) -> str:
        """The class that the rule gives to `value`; KeyError if the attribute has no such value."""
        return self._class_by_value[value]

    @cached_property
    def _class_by_value(self) -> dict[str, str]:
        return {value: label for label, values in self.classes.items() for value in values}


ATTRIBUTES = (
    Attribute(
        name="town",
        mmlu_subject="high_school_geography",
        classes={
            "north": ("Arden", "Belmar", "Corvo"),
            "south": ("Dunmore", "Elstow", "Farrow"),
            "east": ("Galden", "Hythe", "Iver"),
            "west": ("Jarrow", "Kelso", "Lorne"),
        },
        statements=(
            "{n} lives in {v}.",
            "The home of {n} is in {v}.",
            "{n} has a house in {v}.",
            "You can find {n} in {v}.",
        ),
        rule="{v} lies in the {c}.",
        derived="{n} lives in the {c}.",
        question="In which town does {n} live?",
        friend_question="In which town does the friend of {n} live?",
        class_question="In which part of the land does {n} live?",
        goal="To visit {n} at home",
        solution="travel to {v}.",
        class_solution="travel to the {c}.",
        action="lives in {v}",
        class_action="lives in the {c}",
    ),
    Attribute(
        name="food",
        mmlu_subject="nutrition",
        classes={
            "sweet": ("honey", "figs", "cake"),
            "sour": ("lemons", "pickles", "sorrel"),
            "salty": ("cheese", "olives", "ham"),
            "bitter": ("coffee", "kale", "cocoa"),
        },
        statements=(
            "{n} likes to eat {v}.",
            "The favourite food of {n} is {v}.",
            "{n} eats {v} every day.",
            "For dinner {n} has {v}.",
        ),
        rule="The taste of {v} is {c}.",
        derived="{n} likes food that is {c}.",
        question="What does {n} like to eat?",
        friend_question="What does the friend of {n} like to eat?",
        class_question="Which taste does {n} like?",
        goal="To cook a meal for {n}",
        solution="serve {v}.",
        class_solution="make something {c}.",
        action="eats {v}",
        class_action="likes {c} food",
    ),
    Attribute(
        name="animal",
        mmlu_subject="high_school_biology",
        classes={
            "fur": ("dog", "cat", "goat"),
            "feathers": ("hen", "duck", "crow"),
            "scales": ("carp", "snake", "lizard"),
            "shells": ("crab", "snail", "turtle"),
        },
        statements=(
            "{n} keeps a {v}.",
            "The animal of {n} is a {v}.",
            "{n} looks after a {v}.",
            "At home {n} has a {v}.",
        ),
        rule="A {v} is an animal with {c}.",
        derived="{n} keeps an animal with {c}.",
        question="Which animal does {n} keep?",
        friend_question="Which animal does the friend of {n} keep?",
        class_question="What covers the animal of {n}?",
        goal="To feed the animal of {n}",
        solution="bring food for a {v}.",
        class_solution="look for an animal with {c}.",
        action="keeps a {v}",
        class_action="keeps an animal with {c}",
    ),
    Attribute(
        name="trade",
        mmlu_subject="sociology",
        classes={
            "wood": ("carpenter", "cooper", "joiner"),
            "iron": ("smith", "cutler", "farrier"),
            "cloth": ("tailor", "weaver", "dyer"),
            "clay": ("potter", "tiler", "modeller"),
        },
        statements=(
            "{n} works as a {v}.",
            "The trade of {n} is that of a {v}.",
            "{n} earns a living as a {v}.",
            "People know {n} as a {v}.",
        ),
        rule="A {v} works with {c}.",
        derived="{n} works with {c}.",
        question="What is the trade of {n}?",
        friend_question="What is the trade of the friend of {n}?",
        class_question="With which material does {n} work?",
        goal="To learn the trade of {n}",
        solution="train as a {v}.",
        class_solution="practise with {c}.",
        action="works as a {v}",
        class_action="works with {c}",
    ),
    Attribute(
        name="instrument",
        mmlu_subject="miscellaneous",
        classes={
            "strings": ("harp", "lute", "fiddle"),
            "winds": ("flute", "recorder", "bassoon"),
            "drums": ("tabor", "timbrel", "bongo"),
            "keys": ("piano", "celesta", "spinet"),
        },
        statements=(
            "{n} plays the {v}.",
            "The instrument of {n} is the {v}.",
            "{n} has learnt the {v}.",
            "On Sundays {n} practises the {v}.",
        ),
        rule="The {v} belongs to the {c}.",
        derived="{n} sits with the {c}.",
        question="Which instrument does {n} play?",
        friend_question="Which instrument does the friend of {n} play?",
        class_question="With which group does {n} sit?",
        goal="To hear {n} make music",
        solution="listen for the {v}.",
        class_solution="listen to the {c}.",
        action="plays the {v}",
        class_action="sits with the {c}",
    ),
    Attribute(
        name="colour",
        mmlu_subject="astronomy",
        classes={
            "spring": ("green", "pink", "yellow"),
            "summer": ("blue", "gold", "orange"),
            "autumn": ("red", "brown", "purple"),
            "winter": ("white", "grey", "black"),
        },
        statements=(
            "{n} wears {v}.",
            "The coat of {n} is {v}.",
            "{n} was born under the {v} star.",
            "The star of {n} is {v}.",
        ),
        rule="The {v} star rises in {c}.",
        derived="{n} was born in {c}.",
        question="Which star was {n} born under?",
        friend_question="Which star was the friend of {n} born under?",
        class_question="In which season was {n} born?",
        goal="To paint the star of {n}",
        solution="mix some {v}.",
        class_solution="wait for {c}.",
        action="wears {v}",
        class_action="was born in {c}",
    ),
)


@dataclass(frozen=True)
class World:
    """The drawn world: `facts[person][attribute name] -> value`, `friend[person] -> person`, the held-out facts, and
    those that no passage states (`left_out.py`)."""

    people: tuple[str, ...]
    facts: dict[str, dict[str, str]]
    friend: dict[str, str]
    held_out: frozenset[tuple[str, str]]
    unsaid: frozenset[tuple[str, str]] = frozenset()

    def value(self, person: str, attribute: Attribute) -> str:
        return self.facts[person][attribute.name]

    def label(self, person: str, attribute: Attribute) -> str:
        """The class of the person's value: one fact and one rule away."""
        return attribute.class_of(self.value(person, attribute))

    def is_held_out(self, person: str, attribute: Attribute) -> bool:
        return (person, attribute.name) in self.held_out

    def is_unsaid(self, person: str, attribute: Attribute) -> bool:
        return (person, attribute.name) in self.unsaid


def build_world(seed: int = WORLD_SEED) -> World:
    """Draw the world from `seed`. Values are balanced over people; a friend is never oneself."""
    rng = random.Random(f"world-{seed}")
    people = rng.sample([a + b + c for a in ONSETS for b in MIDDLES for c in ENDINGS], PEOPLE)
    facts: dict[str, dict[str, str]] = {person: {} for person in people}
    held_out = set()
    for offset, attribute in enumerate(ATTRIBUTES):
        deck = [attribute.values[i % len(attribute.values)] for i in range(len(people))]
        rng.shuffle(deck)
        for index, (person, value) in enumerate(zip(people, deck, strict=True)):
            facts[person][attribute.name] = value
            if (index + offset) % 3 == 0:
                held_out.add((person, attribute.name))
    circle = list(people)
    rng.shuffle(circle)
    friend = {person: circle[(i + 1) % len(circle)] for i, person in enumerate(circle)}
    return World(tuple(people), facts, friend, frozenset(held_out))
