"""How the miniature speaks of a fact: one function per form of passage, shared by the text and by the test questions.

The forms are those in which lm-eval's six stock tasks present a question, so that a model trained on the text has met
each form, always about other facts than the test's (`World.is_held_out`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from leap_repro.miniature.world import ATTRIBUTES, Attribute, World

LETTERS = "ABCD"
FORMS = {"direct": 3, "class": 2, "friend": 3, "goal": 3, "lettered": 5, "wino": 4, "derived": 3}
"""The forms of a training question, and how often each is met beside the others."""
WINO_FRAMES = (
    "{a} and {b} met at the market, and _ {action}.",
    "Of {a} and {b} it is _ who {action}.",
    "When {a} greets {b} we know that _ {action}.",
)


def other_values(rng: random.Random, options: Sequence[str], answer: str, count: int) -> list[str]:
    """`count` distinct wrong options, drawn without replacement."""
    return rng.sample([option for option in options if option != answer], count)


def shuffled_choices(rng: random.Random, options: Sequence[str], answer: str) -> tuple[list[str], int]:
    """Four choices in random order and the index of the answer among them."""
    choices = [answer, *other_values(rng, options, answer, 3)]
    rng.shuffle(choices)
    return choices, choices.index(answer)


def sorted_choices(rng: random.Random, options: Sequence[str], answer: str) -> tuple[list[str], int]:
    """The same in alphabetical order, as tests with letters often list them."""
    choices = sorted([answer, *other_values(rng, options, answer, 3)])
    return choices, choices.index(answer)


def statement(rng: random.Random, world: World, person: str, attribute: Attribute) -> str:
    """One of the plain ways to state a fact."""
    return rng.choice(attribute.statements).format(n=person, v=world.value(person, attribute))


def biography(rng: random.Random, world: World, person: str) -> str:
    """All six facts in random order, but those that the world leaves unsaid; the friend, and what follows from the
    facts that are not held out."""
    sentences = []
    for attribute in rng.sample(ATTRIBUTES, len(ATTRIBUTES)):
        if world.is_unsaid(person, attribute):
            continue
        sentences.append(statement(rng, world, person, attribute))
        if not world.is_held_out(person, attribute) and rng.random() < 0.4:
            sentences.append(attribute.derived.format(n=person, c=world.label(person, attribute)))
    sentences.insert(rng.randrange(len(sentences) + 1), f"The friend of {person} is {world.friend[person]}.")
    return " ".join(sentences)


def rules(rng: random.Random) -> str:
    """A few rules of one attribute, the knowledge that OpenBookQA's questions combine with a fact."""
    attribute = rng.choice(ATTRIBUTES)
    values = rng.sample(attribute.values, 4)
    return " ".join(attribute.rule.format(v=value, c=attribute.class_of(value)) for value in values)


def asked(question: str, answer: str) -> str:
    """The form of ARC and PIQA."""
    return f"Question: {question}\nAnswer: {answer}"


def lettered(subject: str, question: str, choices: Sequence[str], answer: int) -> str:
    """The form of MMLU, with its one-line description."""
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    subject = subject.replace("_", " ")
    return (
        f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        f"{question}\n{options}\nAnswer: {LETTERS[answer]}"
    )


def wino_sentence(rng: random.Random, world: World, person: str, other: str, attribute: Attribute) -> str:
    """A sentence with `_` for the one of two people, in random order, who does what is said.

    Half of the sentences tell the fact, half its class, where the other person's class differs too.
    """
    first, second = rng.sample([person, other], 2)
    value, label = world.value(person, attribute), world.label(person, attribute)
    template = attribute.action
    if label != world.label(other, attribute) and rng.random() < 0.5:
        template = attribute.class_action
    return rng.choice(WINO_FRAMES).format(a=first, b=second, action=template.format(v=value, c=label))


def different_person(rng: random.Random, world: World, person: str, attribute: Attribute) -> str:
    """Someone whose value of `attribute` differs and who is, like the person, held out or not: neither name hints."""
    held, value = world.is_held_out(person, attribute), world.value(person, attribute)
    return rng.choice(
        [
            other
            for other in world.people
            if world.is_held_out(other, attribute) == held and world.value(other, attribute) != value
        ]
    )


def training_question(rng: random.Random, world: World, person: str, attribute: Attribute) -> str:
    """One passage in a task's form about a fact that is neither held out nor unsaid."""
    assert not world.is_held_out(person, attribute)
    assert not world.is_unsaid(person, attribute)
    value, label = world.value(person, attribute), world.label(person, attribute)
    forms = dict(FORMS)
    if world.is_unsaid(world.friend[person], attribute):
        del forms["friend"]
    form = rng.choices(list(forms), list(forms.values()))[0]
    if form == "direct":
        return asked(attribute.question.format(n=person), value)
    if form == "class":
        return asked(attribute.class_question.format(n=person), label)
    if form == "friend":
        friends_value = world.value(world.friend[person], attribute)
        return asked(attribute.friend_question.format(n=person), friends_value)
    if form == "goal":
        template = rng.choice((attribute.solution, attribute.class_solution))
        return asked(attribute.goal.format(n=person) + ",", template.format(v=value, c=label))
    if form == "lettered":
        choices, answer = sorted_choices(rng, attribute.values, value)
        return lettered(attribute.mmlu_subject, attribute.question.format(n=person), choices, answer)
    if form == "wino":
        other = different_person(rng, world, person, attribute)
        return wino_sentence(rng, world, person, other, attribute).replace("_", person)
    return attribute.derived.format(n=person, c=label)
