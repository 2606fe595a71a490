"""The text teaches every fact, asks only about facts that are not held out, and no two splits share a page."""

import re
from collections import Counter

import pytest

from leap_repro.miniature.questions import task_sets
from leap_repro.miniature.text import SPLIT_PAGES, _pages, pages
from leap_repro.miniature.world import ATTRIBUTES, build_world

TRAINING_PAGES = 5000


@pytest.fixture(scope="module")
def splits():
    return {name: pages(name, TRAINING_PAGES if name == "train" else None) for name in SPLIT_PAGES}


def told_or_asked(world, person, attribute):
    """What a page would hold if it asked about a fact or derived from it; the plain statement is none of these."""
    forms = {
        "direct": [attribute.question.format(n=person)],
        "class": [attribute.class_question.format(n=person)],
        "friend": [attribute.friend_question.format(n=person)],
        "goal": [attribute.goal.format(n=person) + ","],
        "derived": [attribute.derived.format(n=person, c=label) for label in attribute.classes],
    }
    actions = [attribute.action.format(v=world.value(person, attribute))]
    actions += [attribute.class_action.format(c=label) for label in attribute.classes]
    forms["wino"] = [
        f"{lead}{person} {who}{action}"
        for lead, who in (("and ", ""), ("that ", ""), ("is ", "who "))
        for action in actions
    ]
    return forms


def count_forms(world, text_pages, held_out):
    """How many times each form is met about facts that are, or are not, held out."""
    people, forms = set(world.people), {}
    for person in world.people:
        kept = [attribute for attribute in ATTRIBUTES if world.is_held_out(person, attribute) == held_out]
        forms[person] = [item for attribute in kept for item in told_or_asked(world, person, attribute).items()]
    found = Counter()
    for page in text_pages:
        for person in people.intersection(re.findall(r"[A-Z][a-z]+", page)):
            found.update(form for form, texts in forms[person] if any(text in page for text in texts))
    return found


def test_splits_have_their_sizes_and_share_no_page(splits):
    everything = [page for split in splits.values() for page in split]
    assert {name: len(split) for name, split in splits.items()} == SPLIT_PAGES | {"train": TRAINING_PAGES}
    assert len(everything) == len(set(everything))


@pytest.mark.parametrize("split", ["calibration", "test"])
def test_a_split_is_the_same_again_and_a_limit_takes_its_beginning(splits, split):
    assert pages(split) == splits[split]
    assert pages(split, 10) == splits[split][:10]


def test_a_page_that_is_taken_is_passed_over():
    first, taken, *rest = pages("test", 6)
    assert list(_pages("test", build_world(), 5, {taken})) == [first, *rest]


def test_an_unknown_split_is_an_error():
    with pytest.raises(KeyError):
        pages("validation")


@pytest.mark.parametrize("split", list(SPLIT_PAGES))
def test_no_page_asks_about_a_held_out_fact_or_derives_from_it(splits, split):
    world = build_world()
    assert count_forms(world, splits[split], held_out=True) == {}


def test_pages_ask_about_the_other_facts_in_every_form(splits):
    found = count_forms(build_world(), splits["calibration"], held_out=False)
    assert set(found) == {"direct", "class", "friend", "goal", "derived", "wino"}
    assert min(found.values()) > 100


def test_every_fact_held_out_or_not_is_stated_plainly_in_the_training_text(splits):
    world, text = build_world(), "\n".join(splits["train"])
    for person in world.people:
        for attribute in ATTRIBUTES:
            value = world.value(person, attribute)
            assert any(statement.format(n=person, v=value) in text for statement in attribute.statements)


def test_no_page_states_a_wrong_value(splits):
    world = build_world()
    stated = 0
    for attribute in ATTRIBUTES:
        patterns = [
            re.escape(s).replace(r"\{n\}", "(?P<n>[A-Z][a-z]+)").replace(r"\{v\}", "(?P<v>[A-Za-z]+)")
            for s in attribute.statements
        ]
        for pattern in patterns:
            for match in re.finditer(pattern, "\n".join(splits["calibration"])):
                if match["v"] in attribute.values:
                    assert match["v"] == world.value(match["n"], attribute)
                    stated += 1
    assert stated > 1000


def test_no_scored_question_stands_in_the_text(splits):
    text = "\n".join(page for split in splits.values() for page in split)
    sets = task_sets()
    asked = [row["question"] for name in ("arc_easy", "arc_challenge") for row in sets[name]["test"]]
    asked += [row["goal"] for row in sets["piqa"]["validation"]]
    lines = set(re.findall(r"Question: (.*)", text)) | set(text.split("\n"))
    assert len(asked) > 1200
    assert not lines.intersection(asked)
