"""Text without some facts, read by patterns of every form of passage, which share no code with what writes them."""

import re
from collections import Counter
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest

from leap_repro.data.text import fetch_text
from leap_repro.errors import UserError
from leap_repro.miniature.left_out import LEFT_OUT, asked_facts, other_facts
from leap_repro.miniature.questions import task_sets
from leap_repro.miniature.text import WITHOUT_PAGES, pages
from leap_repro.miniature.world import ATTRIBUTES, build_world

USUAL = {
    "calibration": "ade2ba61c08beab82347c820a0d1f0d6a4554ae1599d4e10ab17ede0eef39afb",
    "mask_training": "6a800fc547fa8228ad6cf182e8aa2584372d4a5afa34ad993d4e3084941d5368",
    "test": "f6bb419397f400f2b65ca8f06403ca61c207b42f58ba05119c8bb9452756c658",
}
"""The sha256 of the usual pages, each closed by a zero byte, as they were before any were left out."""
NAME, WORD = "(?P<n>[A-Z][a-z]+)", "(?P<w>[A-Za-z]+)"


def as_pattern(*templates):
    """The templates one behind the other, with a name for {n} and a word for {v} and {c}."""
    text = re.escape("".join(templates))
    return text.replace(r"\{n\}", NAME).replace(r"\{v\}", WORD).replace(r"\{c\}", WORD)


def sayings(attribute):
    """{pattern: whether it tells a friend's fact} of all that can say a fact about someone, or its class."""
    answer = "\nAnswer: {v}"
    told = [(text,) for text in (*attribute.statements, attribute.derived)]
    told += [("{n} ", who, verb) for who in ("", "who ") for verb in (attribute.action, attribute.class_action)]
    told += [(attribute.question, answer), (attribute.class_question, answer)]
    told += [(attribute.goal, ",\nAnswer: ", end) for end in (attribute.solution, attribute.class_solution)]
    return {as_pattern(*parts): False for parts in told} | {as_pattern(attribute.friend_question, answer): True}


def stated(text):
    """How often each fact, (person, attribute), is said in a text, be it by its value or by its class."""
    world, found = build_world(), Counter()
    for attribute in ATTRIBUTES:
        words, places = {*attribute.values, *attribute.classes}, set()
        for pattern, of_friend in sayings(attribute).items():
            for match in re.finditer(pattern, text):
                person = match["n"]
                if match["w"] in words and person in world.friend:
                    person = world.friend[person] if of_friend else person
                    assert match["w"] in (world.value(person, attribute), world.label(person, attribute))
                    places.add((match.start("n"), person))
        for match in re.finditer(
            as_pattern(attribute.question) + r"\nA\. .*\nB\. .*\nC\. .*\nD\. .*\nAnswer: [A-D]", text
        ):
            places.add((match.start("n"), match["n"]))
        found.update((person, attribute.name) for _, person in places)
    return found


@cache
def read(split, without=None):
    """The pages of a text, drawn once for all tests."""
    return pages(split, without=without)


def test_the_usual_text_has_the_bytes_that_it_had():
    for split, digest in USUAL.items():
        assert sha256("".join(f"{page}\0" for page in read(split)).encode()).hexdigest() == digest


def test_the_asked_facts_are_those_that_scored_questions_ask_for():
    """Every scored row of ARC, in which each form of question is a sentence of its own."""
    world, sets, asked = build_world(), task_sets(), set()
    rows = sets["arc_easy"]["test"] + sets["arc_challenge"]["test"]
    for row in rows:
        answer = row["choices"]["text"]["ABCD".index(row["answerKey"])]
        for attribute in ATTRIBUTES:
            for question in (attribute.question, attribute.class_question, attribute.friend_question):
                if match := re.fullmatch(as_pattern(question), row["question"]):
                    person = match["n"]
                    person = world.friend[person] if question == attribute.friend_question else person
                    assert answer in (world.value(person, attribute), world.label(person, attribute))
                    asked.add((person, attribute.name))
    assert world.held_out < asked == asked_facts()


@pytest.mark.parametrize("split", ["calibration", pytest.param("mask_training", marks=pytest.mark.slow)])
def test_no_tested_fact_is_said_in_the_fact_free_text_and_every_one_in_the_others(split):
    tested, others = asked_facts(), other_facts()
    usual, fact_free, control = (stated("\n\n".join(read(split, name))).keys() for name in (None, *LEFT_OUT))
    assert not tested & fact_free
    assert not others & control
    for text, whole in ((usual, tested | others), (control, tested), (fact_free, others)):
        assert len(whole & text) > 0.9 * len(whole)
        assert split == "calibration" or whole <= text


def test_the_control_is_without_as_many_facts_none_of_which_is_tested():
    tested, others = asked_facts(), other_facts()
    assert len(others) == len(tested) > 432
    assert not others & tested
    facts = {(person, attribute.name) for person in build_world().people for attribute in ATTRIBUTES}
    assert others < facts
    lost = [Counter(person for person, _ in left_out) for left_out in (tested, others)]
    assert max(abs(lost[0][person] - lost[1][person]) for person in build_world().people) <= 2


@pytest.mark.parametrize("without", LEFT_OUT)
def test_a_text_without_facts_is_the_same_again_and_shares_no_page(without):
    own = {split: read(split, without) for split in WITHOUT_PAGES}
    assert {split: len(text) for split, text in own.items()} == WITHOUT_PAGES
    every = [page for text in own.values() for page in text] + [page for split in USUAL for page in read(split)]
    assert len(every) == len(set(every))
    assert pages("calibration", 10, without) == own["calibration"][:10]
    for split, text in own.items():
        assert sum(map(len, text)) > 0.9 * sum(map(len, read(split)))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"split": "test", "without": "tested-facts"}, "no split 'test'; the splits are"),
        ({"split": "calibration", "without": "facts"}, "without is 'facts'; a bundled text may be without one of"),
    ],
)
def test_other_texts_are_refused(spec, words, tmp_path):
    with pytest.raises(UserError, match=words):
        fetch_text({"source": "bundled", **spec}, tmp_path)


def test_the_page_says_how_many_facts_there_are():
    page = " ".join((Path(__file__).parents[3] / "docs/fact-free.md").read_text(encoding="utf-8").split())
    world, left_out = build_world(), len(asked_facts())
    assert f"the {len(world.held_out)} held-out facts" in page
    assert f"{left_out} of the world's {len(world.people) * len(ATTRIBUTES):,} in all" in page
    assert f"without {left_out} other facts" in page
