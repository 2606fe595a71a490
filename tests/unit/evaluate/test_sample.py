"""A sample of the questions: the same for every model, drawn evenly, scored as the whole is."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

import leap_repro
from leap_repro.data.tasks import place_tasks
from leap_repro.evaluate.rows import accuracy_rows
from leap_repro.evaluate.zero_shot import Answers, evaluate_tasks, sample
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.report.tables import sampled, scored

RELEASED = Path(leap_repro.__file__).parent / "miniature/released"
SETS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 30), min_size=1, max_size=5)


@given(SETS, st.integers(1, 100))
def test_so_many_of_all_leaves_together_each_once(held, questions):
    asked = sample("mmlu", held, questions)
    assert sum(map(len, asked.values())) == min(questions, sum(held.values()))
    for leaf, indices in asked.items():
        assert indices == sorted(set(indices))
        assert indices[0] >= 0
        assert indices[-1] < held[leaf]


@given(SETS, st.none() | st.integers(500))
def test_without_a_limit_or_under_it_all_are_asked(held, questions):
    assert sample("piqa", held, questions) == {leaf: list(range(count)) for leaf, count in held.items()}


def test_every_question_of_a_leaf_or_another_is_as_likely():
    """Over the names of 2,000 tasks: 3 of 10 questions, so each 600 times, give or take four standard deviations."""
    counts = Counter()
    for number in range(2000):
        asked = sample(f"task {number}", {"a": 7, "b": 3}, 3)
        counts.update((leaf, index) for leaf, indices in asked.items() for index in indices)
    assert len(counts) == 10
    assert all(abs(count - 600) < 4 * 20.5 for count in counts.values())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    place_tasks({"source": "bundled"}, folder)
    return folder


def answers_of(name, data, questions):
    folder = RELEASED / name
    return evaluate_tasks(load_model(folder), load_tokenizer(folder), data, 64, {}, questions)


@pytest.fixture(scope="module")
def part(data):
    return answers_of("llama3.2-1b-mini", data, 5)


def test_what_is_asked_is_answered_as_in_the_whole(part, data):
    whole = answers_of("llama3.2-1b-mini", data, None)
    by_question = {(o["leaf"], o["index"]): o for o in whole.outcomes}
    assert [by_question[o["leaf"], o["index"]] for o in part.outcomes] == part.outcomes
    assert Counter(o["task"] for o in part.outcomes) == dict.fromkeys(part.accuracies, 5)
    assert part.held == whole.held == dict(Counter(o["task"] for o in whole.outcomes))


def test_another_model_is_asked_the_same(part, data):
    other = answers_of("qwen2.5-0.5b-mini", data, 5)
    questions = [[{**outcome, "correct": None} for outcome in answers.outcomes] for answers in (part, other)]
    assert questions[0] == questions[1]


def test_accuracy_and_its_error_are_those_of_the_sample_and_the_protocol_says_so(part):
    rows = {row["task"]: row for row in accuracy_rows(part)}
    for task, accuracy in part.accuracies.items():
        right = [o["correct"] for o in part.outcomes if o["task"] == task]
        assert accuracy == pytest.approx(sum(right) / 5)
        share = sum(right) / 5
        assert rows[task]["stderr"] == pytest.approx(100 * (share * (1 - share) / 4) ** 0.5)
        assert rows[task]["protocol"] == f"zero-shot, 5 of {part.held[task]} questions"
        assert rows[task]["n"] == 5


def test_the_average_is_of_the_six_tasks_however_many_there_are_besides(part):
    outcome = part.outcomes[0] | {"task": "boolq", "leaf": "boolq", "correct": 1}
    more = Answers(part.accuracies | {"boolq": 1.0}, [*part.outcomes, *[outcome] * 7], part.held | {"boolq": 7})
    six = {row["task"]: row for row in accuracy_rows(part)}
    seven = {row["task"]: row for row in accuracy_rows(more)}
    assert seven["boolq"]["value"] == 100
    assert seven["average"] == six["average"]
    assert six["average"]["n"] == 30
    assert six["average"]["value"] == pytest.approx(100 * sum(part.accuracies.values()) / 6)


def test_a_table_says_what_was_asked_of_each_task():
    protocols = {"mmlu": "zero-shot, 500 of 14042 questions", "piqa": "zero-shot", "average": "mean of the six tasks"}
    results = pd.DataFrame({"task": protocols.keys(), "metric": "acc", "protocol": protocols.values()})
    said = sampled(results)
    assert said == " Questions (a sample, the same in every cell): MMLU 500 of 14042 questions."
    assert sampled(results[1:]) == ""


@pytest.fixture
def changed(tmp_path):
    """A function that gives a copy of a miniature, its tokenizer's template and its configuration changed."""

    def build(name, single=None, **config):
        folder = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(RELEASED / name, folder)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if single:
            used = [token for token in ("<|begin|>", "<|end|>") if token in single]
            known = [(token, tokenizer.token_to_id(token)) for token in used]
            tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=known)
        tokenizer.save(str(folder / "tokenizer.json"))
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return folder

    return build


def answers_in(folder, data, questions=5):
    return evaluate_tasks(load_model(folder), load_tokenizer(folder), data, 64, {}, questions)


@pytest.mark.parametrize("single", ["<|begin|> $A <|end|>", "<|begin|> $A"])
def test_accuracies_are_those_of_the_tokenizer_that_appends_nothing(part, changed, data, single):
    found = answers_in(changed("llama3.2-1b-mini", single), data)
    assert (found.accuracies, found.outcomes) == (part.accuracies, part.outcomes)
    end = ", without the <|end|> that the tokenizer appends" if "<|end|>" in single else ""
    for row, plain in zip(accuracy_rows(found), accuracy_rows(part), strict=True):
        assert row == plain | {"protocol": plain["protocol"] + end}


def test_a_task_of_questions_longer_than_the_positions_is_refused(changed, data, refused):
    with refused("5 of 5 questions", "10 positions"):
        answers_in(changed("llama3.2-1b-mini", max_position_embeddings=10), data)


def test_what_is_cut_is_said_in_each_row(part):
    rows = accuracy_rows(replace(part, cut={"piqa": (2, 64), "mmlu": (1, 64)}))
    said = {row["task"]: row["protocol"] for row in rows}
    held = part.held
    assert said["piqa"] == f"zero-shot, 5 of {held['piqa']} questions, 2 of 5 questions cut to 64 tokens"
    assert said["arc_easy"] == f"zero-shot, 5 of {held['arc_easy']} questions"
    assert said["average"] == "mean of the six tasks, 3 of 30 questions cut to 64 tokens"
    table = scored(pd.DataFrame(rows))
    assert f"PIQA 5 of {held['piqa']} questions; " in table
    cut = "MMLU 1 of 5 questions cut to 64 tokens; PIQA 2 of 5 questions cut to 64 tokens"
    assert table.endswith(f" Questions longer than the model's positions: {cut}.")
