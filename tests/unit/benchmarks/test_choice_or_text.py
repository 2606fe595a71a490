"""Lines that a model writes are judged by the right answer, and prompts of one length are continued together."""

import pytest
import torch
from scripts import loaded

from leap_repro.miniature.bundled import bundled_models
from leap_repro.miniature.questions import task_sets
from leap_repro.models.load import load_model, load_tokenizer


@pytest.fixture(scope="module")
def choice(project):
    with loaded(project / "benchmarks/choice_or_text.py") as module:
        yield module


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("Farrow", "right"),
        ("farrow.", "right"),
        ("Jarrow", "another choice"),
        ("Farrow Jarrow", "other"),
        ("the town of Farrow", "other"),
        ("", "other"),
    ],
)
def test_a_line_is_right_if_it_is_the_answer(choice, line, verdict):
    assert choice.judged(line, ["Farrow", "Jarrow", "Corvo", "Belmar"], "Farrow") == verdict


def test_every_prompt_is_in_one_batch_of_its_length(choice):
    ids = [[0] * length for length in [3, 5, 3, 4, 5, 3] + [7] * 130]
    batches = list(choice.same_lengths(ids))
    assert sorted(place for places in batches for place in places) == list(range(len(ids)))
    assert all(len({len(ids[place]) for place in places}) == 1 for places in batches)
    assert max(map(len, batches)) == choice.BATCH


def test_the_lines_are_those_of_a_loop_over_the_likeliest_tokens(choice):
    folder = bundled_models()["qwen2.5-0.5b-mini"]
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    rows = task_sets()["arc_easy"]["test"][:6]
    prompts = [choice.PROMPT.format(question=row["question"]) for row in rows]
    lines = choice.written(model, tokenizer, prompts)
    for prompt, line in zip(prompts, lines, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        start = len(ids)
        for _ in range(choice.NEW_TOKENS):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        text = tokenizer.decode(ids[start:], skip_special_tokens=True)
        assert line == text.strip().partition("\n")[0].strip()
    answers = [dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True)) for row in rows]
    right = [line == each[row["answerKey"]] for line, each, row in zip(lines, answers, rows, strict=True)]
    assert any(right), "the dense model knows some of them"
