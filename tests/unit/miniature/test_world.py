"""The world is one and the same from its seed, balanced, and a third of its facts is held out."""

import subprocess
import sys
from collections import Counter

import pytest

from leap_repro.miniature.world import ATTRIBUTES, PEOPLE, WORLD_SEED, build_world


def test_the_seed_decides_the_world():
    assert build_world() == build_world(WORLD_SEED)
    assert build_world(WORLD_SEED + 1) != build_world()


def test_world_text_and_questions_do_not_depend_on_the_processs_hash_seed():
    program = (
        "from hashlib import sha256\n"
        "from leap_repro.miniature.world import build_world\n"
        "from leap_repro.miniature.text import pages\n"
        "from leap_repro.miniature.questions import task_sets\n"
        "world = build_world()\n"
        "drawn = (world.people, world.facts, world.friend, sorted(world.held_out))\n"
        "parts = (*drawn, pages('calibration', 50), task_sets())\n"
        "print([sha256(repr(part).encode()).hexdigest() for part in parts])\n"
    )
    command = [sys.executable, "-c", program]
    runs = [subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True) for seed in "12"]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout) > 6 * 64


def test_people_have_names_of_their_own_and_exactly_one_friend_each_other_than_themselves():
    world = build_world()
    assert len(set(world.people)) == PEOPLE
    assert set(world.friend) == set(world.friend.values()) == set(world.people)
    assert all(person != friend for person, friend in world.friend.items())


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.name)
def test_the_values_and_the_held_out_facts_of_an_attribute_are_balanced(attribute):
    world = build_world()
    values = Counter(world.value(person, attribute) for person in world.people)
    assert values == dict.fromkeys(attribute.values, PEOPLE // len(attribute.values))
    assert sum(world.is_held_out(person, attribute) for person in world.people) == PEOPLE // 3


def test_every_person_has_facts_of_both_kinds():
    world = build_world()
    for person in world.people:
        assert sum(world.is_held_out(person, attribute) for attribute in ATTRIBUTES) == len(ATTRIBUTES) // 3


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.name)
def test_the_rule_sends_each_value_to_one_of_four_classes_of_equal_size(attribute):
    assert len(attribute.values) == len(set(attribute.values))
    classes = Counter(attribute.class_of(value) for value in attribute.values)
    assert classes == dict.fromkeys(attribute.classes, len(attribute.values) // 4)
    assert build_world().label(build_world().people[0], attribute) in attribute.classes


def test_no_word_is_a_value_of_two_attributes_and_no_subject_is_shared():
    words = [word for attribute in ATTRIBUTES for word in attribute.values]
    assert len(words) == len(set(words))
    assert len({attribute.mmlu_subject for attribute in ATTRIBUTES}) == len(ATTRIBUTES)


def test_a_value_that_an_attribute_does_not_have_is_an_error():
    with pytest.raises(KeyError):
        ATTRIBUTES[0].class_of("nowhere")
