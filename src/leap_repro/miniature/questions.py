"""The miniature's six test sets, in the exact schemas of the originals, about the held-out facts only.

| set | what it asks | hops |
|---|---|---|
| arc_easy | the fact itself | 1 |
| arc_challenge | the fact's class, or the friend's fact | 2 |
| openbookqa | complete a sentence with the fact's class | 2 |
| piqa | which of two actions fits the fact, or its class | 1-2 |
| winogrande | which of two people does it | 1-2 |
| mmlu | the fact, answered by a letter; one subject per attribute | 1 + lookup |
"""

from __future__ import annotations

import random
from typing import Any

from leap_repro.miniature.passages import (
    LETTERS,
    different_person,
    other_values,
    shuffled_choices,
    sorted_choices,
    wino_sentence,
)
from leap_repro.miniature.world import ATTRIBUTES, Attribute, World, build_world

Row = dict[str, Any]
FEW_SHOT_ROWS = 5


def _choice_row(identifier: str, text_key: str, question: str, choices: list[str], answer: int) -> Row:
    """The schema of ARC ("question") and OpenBookQA ("question_stem")."""
    return {
        "id": identifier,
        text_key: question,
        "choices": {"text": choices, "label": list(LETTERS)},
        "answerKey": LETTERS[answer],
    }


def arc_easy(rng: random.Random, world: World, person: str, attribute: Attribute, identifier: str) -> Row:
    """The fact itself among four values."""
    choices, answer = shuffled_choices(rng, attribute.values, world.value(person, attribute))
    return _choice_row(identifier, "question", attribute.question.format(n=person), choices, answer)


def arc_challenge(rng: random.Random, world: World, person: str, attribute: Attribute, identifier: str) -> Row:
    """The fact's class, or the friend's fact: two hops."""
    if rng.random() < 0.5:
        question, options, value = attribute.class_question, list(attribute.classes), world.label(person, attribute)
    else:
        question, options = attribute.friend_question, attribute.values
        value = world.value(world.friend[person], attribute)
    choices, answer = shuffled_choices(rng, options, value)
    return _choice_row(identifier, "question", question.format(n=person), choices, answer)


def openbookqa(rng: random.Random, world: World, person: str, attribute: Attribute, identifier: str) -> Row:
    """A sentence to complete with the fact's class: the fact and a rule."""
    stem = attribute.derived.removesuffix(" {c}.").format(n=person)
    choices, answer = shuffled_choices(rng, list(attribute.classes), world.label(person, attribute))
    return _choice_row(identifier, "question_stem", stem, choices, answer)


def piqa(rng: random.Random, world: World, person: str, attribute: Attribute, identifier: str) -> Row:
    """Two actions, one of which fits the fact or its class."""
    if rng.random() < 0.5:
        template, options, right = attribute.solution, attribute.values, world.value(person, attribute)
    else:
        template, options, right = attribute.class_solution, list(attribute.classes), world.label(person, attribute)
    wrong = other_values(rng, options, right, 1)[0]
    label = rng.randrange(2)
    solutions = [template.format(v=word, c=word) for word in ((right, wrong) if label == 0 else (wrong, right))]
    return {
        "goal": attribute.goal.format(n=person) + ",",
        "sol1": solutions[0],
        "sol2": solutions[1],
        "label": label,
    }


def winogrande(rng: random.Random, world: World, person: str, attribute: Attribute, identifier: str) -> Row:
    """Two people, one of whom does what the sentence says."""
    other = different_person(rng, world, person, attribute)
    options = rng.sample([person, other], 2)
    return {
        "sentence": wino_sentence(rng, world, person, other, attribute),
        "option1": options[0],
        "option2": options[1],
        "answer": str(options.index(person) + 1),
    }


def mmlu(rng: random.Random, world: World, person: str, attribute: Attribute, identifier: str) -> Row:
    """The fact by letter, the choices in alphabetical order."""
    choices, answer = sorted_choices(rng, attribute.values, world.value(person, attribute))
    return {
        "question": attribute.question.format(n=person),
        "subject": attribute.mmlu_subject,
        "choices": choices,
        "answer": answer,
    }


MAKERS = {
    "arc_easy": (arc_easy, "test", ("train", "validation")),
    "arc_challenge": (arc_challenge, "test", ("train", "validation")),
    "openbookqa": (openbookqa, "test", ("train", "validation")),
    "piqa": (piqa, "validation", ("train",)),
    "winogrande": (winogrande, "validation", ("train",)),
}


def task_sets() -> dict[str, dict[str, list[Row]]]:
    """{set name: {split: rows}}; MMLU is one set per subject, "mmlu_<subject>", with splits test and dev.

    The scored split asks about every held-out fact once; the other splits (which lm-eval's definitions name) hold a
    few questions about facts that are not held out.
    """
    world = build_world()
    facts = [(person, attribute) for attribute in ATTRIBUTES for person in world.people]
    held_out = [fact for fact in facts if world.is_held_out(*fact)]
    open_facts = [fact for fact in facts if not world.is_held_out(*fact)]
    sets = {}
    for name, (make, scored, others) in MAKERS.items():
        rng = random.Random(f"questions-{name}")
        sets[name] = {scored: _rows(rng, world, make, held_out, f"{name}-{scored}")}
        for split in others:
            sets[name][split] = _rows(rng, world, make, rng.sample(open_facts, FEW_SHOT_ROWS), f"{name}-{split}")
    for attribute in ATTRIBUTES:
        rng = random.Random(f"questions-mmlu-{attribute.name}")
        scored = [fact for fact in held_out if fact[1] is attribute]
        shown = rng.sample([fact for fact in open_facts if fact[1] is attribute], FEW_SHOT_ROWS)
        sets[f"mmlu_{attribute.mmlu_subject}"] = {
            "test": _rows(rng, world, mmlu, scored, "mmlu-test"),
            "dev": _rows(rng, world, mmlu, shown, "mmlu-dev"),
        }
    return sets


def _rows(rng: random.Random, world: World, make: Any, facts: list[tuple[str, Attribute]], prefix: str) -> list[Row]:
    return [make(rng, world, person, attribute, f"{prefix}-{i}") for i, (person, attribute) in enumerate(facts)]
