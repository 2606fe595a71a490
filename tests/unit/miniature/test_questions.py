"""The marked answer of every test question is right by the world, the others are wrong, and positions give no hint."""

import random
import re
from collections import Counter

import pytest

from leap_repro.miniature.passages import WINO_FRAMES, different_person
from leap_repro.miniature.questions import task_sets
from leap_repro.miniature.world import ATTRIBUTES, build_world

WORLD = build_world()
SETS = task_sets()
SCORED = {name: splits.get("test", splits.get("validation")) for name, splits in SETS.items() if name != "winogrande"}
SCORED["winogrande"] = SETS["winogrande"]["validation"]
MMLU = sorted(name for name in SETS if name.startswith("mmlu_"))
HELD_OUT = [
    (person, attribute) for person in WORLD.people for attribute in ATTRIBUTES if WORLD.is_held_out(person, attribute)
]


def answers_by_question(facts):
    """{question: answer} for every question that has one right answer among values, classes or a friend's values."""
    answers = {}
    for person, attribute in facts:
        value, label = WORLD.value(person, attribute), WORLD.label(person, attribute)
        answers[attribute.question.format(n=person)] = value
        answers[attribute.class_question.format(n=person)] = label
        answers[attribute.friend_question.format(n=person)] = WORLD.value(WORLD.friend[person], attribute)
        answers[attribute.derived.removesuffix(" {c}.").format(n=person)] = label
    return answers


ANSWERS = answers_by_question(HELD_OUT)


def chosen(row):
    """(choices, index of the marked one), whatever the schema."""
    if "sol1" in row:
        return [row["sol1"], row["sol2"]], row["label"]
    if "option1" in row:
        return [row["option1"], row["option2"]], int(row["answer"]) - 1
    if "answerKey" in row:
        return row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])
    return row["choices"], row["answer"]


def said_in(sentence):
    """The attribute, and whether (person -> bool) what a WinoGrande sentence says of `_` is true of a person."""
    for frame in WINO_FRAMES:
        pattern = re.escape(frame)
        for field in ("a", "b", "action"):
            pattern = pattern.replace(re.escape(f"{{{field}}}"), f"(?P<{field}>.+)")
        if match := re.fullmatch(pattern, sentence):
            action = match["action"]
    for attribute in ATTRIBUTES:
        for value in attribute.values:
            if action == attribute.action.format(v=value):
                return attribute, lambda person, a=attribute, v=value: WORLD.value(person, a) == v
        for label in attribute.classes:
            if action == attribute.class_action.format(c=label):
                return attribute, lambda person, a=attribute, c=label: WORLD.label(person, a) == c
    raise AssertionError(f"no attribute has the action of {sentence!r}")


@pytest.mark.parametrize("name", ["arc_easy", "arc_challenge", "openbookqa", *MMLU])
def test_exactly_the_marked_choice_answers_the_question_about_a_held_out_fact(name):
    for row in SCORED[name]:
        choices, index = chosen(row)
        question = row.get("question", row.get("question_stem"))
        assert len(set(choices)) == 4
        assert [choice == ANSWERS[question] for choice in choices] == [i == index for i in range(4)]


def test_exactly_the_marked_piqa_solution_fits_a_held_out_fact():
    fitting = {
        attribute.goal.format(n=person) + ",": {
            attribute.solution.format(v=WORLD.value(person, attribute)),
            attribute.class_solution.format(c=WORLD.label(person, attribute)),
        }
        for person, attribute in HELD_OUT
    }
    for row in SCORED["piqa"]:
        choices, index = chosen(row)
        assert [choice in fitting[row["goal"]] for choice in choices] == [i == index for i in range(2)]


def test_exactly_the_marked_winogrande_person_does_what_is_said_and_both_facts_are_held_out():
    for row in SCORED["winogrande"]:
        people, index = chosen(row)
        attribute, is_true_of = said_in(row["sentence"])
        assert row["sentence"].count("_") == 1
        assert all(person in row["sentence"] and WORLD.is_held_out(person, attribute) for person in people)
        assert WORLD.value(people[0], attribute) != WORLD.value(people[1], attribute)
        assert [is_true_of(person) for person in people] == [i == index for i in range(2)]


def test_every_held_out_fact_is_asked_once_in_each_set():
    for name in ("arc_easy", "openbookqa", "piqa", "arc_challenge", "winogrande"):
        assert len(SCORED[name]) == len(HELD_OUT), name
    for name in ("arc_easy", "openbookqa", "arc_challenge"):
        questions = [row.get("question", row.get("question_stem")) for row in SCORED[name]]
        assert len(set(questions)) == len(questions)
    assert sum(len(SCORED[name]) for name in MMLU) == len(HELD_OUT)


def test_the_other_splits_ask_about_facts_that_are_not_held_out():
    held_out = set(ANSWERS) | {attribute.goal.format(n=person) + "," for person, attribute in HELD_OUT}
    shown = [
        row.get("question", row.get("question_stem", row.get("goal")))
        for name, splits in SETS.items()
        for rows in splits.values()
        if rows is not SCORED[name] and name != "winogrande"
        for row in rows
    ]
    assert len(shown) > 50
    assert not held_out.intersection(shown)


@pytest.mark.parametrize(
    "names",
    [[name] for name in SCORED if name not in MMLU] + [MMLU],
    ids=lambda names: names[0].split("_")[0] + str(len(names)),
)
def test_answers_are_roughly_balanced_over_positions(names):
    rows = [row for name in names for row in SCORED[name]]
    positions = Counter(chosen(row)[1] for row in rows)
    ways = len(chosen(rows[0])[0])
    spread = (len(rows) * (1 / ways) * (1 - 1 / ways)) ** 0.5
    assert len(positions) == ways
    assert all(abs(count - len(rows) / ways) < 4 * spread for count in positions.values())


def test_a_winogrande_partner_has_another_value_and_is_held_out_if_and_only_if_the_person_is():
    rng = random.Random(0)
    for person in WORLD.people:
        for attribute in ATTRIBUTES:
            other = different_person(rng, WORLD, person, attribute)
            assert WORLD.value(other, attribute) != WORLD.value(person, attribute)
            assert WORLD.is_held_out(other, attribute) == WORLD.is_held_out(person, attribute)


def test_the_person_named_first_is_right_as_often_as_the_other():
    rows = SCORED["winogrande"]
    first = 0
    for row in rows:
        people, index = chosen(row)
        first += row["sentence"].index(people[index]) < row["sentence"].index(people[1 - index])
    assert abs(first / len(rows) - 0.5) < 0.1


@pytest.mark.parametrize("name", MMLU)
def test_the_choices_of_mmlu_are_in_alphabetical_order(name):
    assert all(row["choices"] == sorted(row["choices"]) for rows in SETS[name].values() for row in rows)
