"""Requests tokenised all at once are lm-eval's own, token by token."""

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from families import tiny
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

import leap_repro
from leap_repro.evaluate import requests as requests_of
from leap_repro.evaluate.requests import BatchEncoded, Cut, cut_questions
from leap_repro.models.load import load_model, load_tokenizer

RELEASED = Path(leap_repro.__file__).parent / "miniature/released"
PAIRS = [
    ("the cat sat on", " the mat"),
    ("the cat sat on ", "the mat"),
    ("two spaces  ", "then words"),
    ("the cat sat on", " the sofa"),
    ("", "no context"),
    ("line\n", "Answer: yes"),
]


@pytest.fixture(scope="module", params=["llama3.2-1b-mini", "qwen2.5-0.5b-mini"])
def parts(request):
    folder = RELEASED / request.param
    return {"pretrained": load_model(folder), "tokenizer": load_tokenizer(folder), "batch_size": 4}


def scored(kind, parts, pairs):
    """What the requests became, seen where lm-eval hands them to the model."""
    seen = []
    model = kind(**parts)
    model._loglikelihood_tokens = lambda requests, **options: seen.extend(requests) or [(0.0, False)] * len(requests)
    model.loglikelihood([Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)])
    return seen


def test_the_tokens_are_those_of_lm_eval(parts):
    bos = parts["tokenizer"].decode(HFLM(**parts).prefix_token_id)
    pairs = [*PAIRS, (f"{bos}begins with it", " already")]
    assert scored(BatchEncoded, parts, pairs) == scored(HFLM, parts, pairs)


def test_the_scores_are_those_of_lm_eval(parts):
    requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(PAIRS)]
    assert BatchEncoded(**parts).loglikelihood(requests) == HFLM(**parts).loglikelihood(requests)


def test_answers_that_tie_in_bfloat16_are_told_apart_in_float32(parts):
    """Of two answers the better one comes second, where a tie is lost: all neighbours among a model's next tokens."""
    model = tiny("llama").to(torch.bfloat16)
    model.lm_head.weight.data.mul_(0.25)  # a token is as likely as another, nearly
    parts = parts | {"pretrained": model}
    context = [5, 9, 23, 41]
    with torch.no_grad():
        exact = model(torch.tensor([context])).logits[0, -1].double().log_softmax(0)
    pairs = [(worse, better) for worse, better in pairwise(exact.argsort().tolist()) if exact[worse] < exact[better]]
    asked = [(("", ""), context, [token]) for pair in pairs for token in pair]

    def scored(kind):
        return torch.tensor(kind(**parts)._loglikelihood_tokens(asked, disable_tqdm=True))[:, 0].double()

    theirs, ours = (scored(kind).view(-1, 2) for kind in (HFLM, BatchEncoded))
    assert len(pairs) > 30
    assert (theirs.argmax(dim=1) == 0).sum() > 5, "of ties the first"
    assert (ours.argmax(dim=1) == 1).all()
    torch.testing.assert_close(ours, exact[torch.tensor(pairs)], rtol=1e-6, atol=1e-6)


def test_the_scores_of_an_answers_tokens_are_summed_in_float32(parts):
    model = tiny("llama").to(torch.bfloat16)
    tokens = torch.randint(3, 60, (9,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.no_grad():
        exact = model(torch.tensor([tokens[:-1]])).logits[0].double().log_softmax(1)
    asked = [(("", ""), tokens[:3], tokens[3:])]
    ((score, _),) = BatchEncoded(**parts | {"pretrained": model})._loglikelihood_tokens(asked, disable_tqdm=True)
    assert score == pytest.approx(sum(float(exact[place - 1, tokens[place]]) for place in range(3, 9)), rel=1e-6)


def test_no_request_is_tokenised_by_itself(parts, monkeypatch):
    model = BatchEncoded(**parts)
    monkeypatch.setattr(model, "_loglikelihood_tokens", lambda requests, **options: requests)
    monkeypatch.setattr(HFLM, "tok_encode", lambda *arguments, **options: pytest.fail("one by one"))
    assert len(model.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in PAIRS[:4]])) == 4


def with_eos_behind(tokenizer):
    """The tokenizer as its file would have it that appends EOS too."""
    before = [tokenizer.bos_token] * (tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id)
    made = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    ends = [*before, made.eos_token]
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=" ".join([*before, "$A", made.eos_token]),
        special_tokens=[(token, made.convert_tokens_to_ids(token)) for token in ends],
    )
    return made


def test_what_a_tokenizer_puts_behind_a_text_is_in_no_request(parts):
    appending = with_eos_behind(parts["tokenizer"])
    assert appending("x")["input_ids"][-1] == appending.eos_token_id
    pairs = [*PAIRS, (f"{appending.eos_token}begins with it", " already")]
    assert scored(HFLM, parts | {"tokenizer": appending}, pairs) != scored(HFLM, parts, pairs), (
        "what lm-eval makes of it"
    )
    assert scored(BatchEncoded, parts | {"tokenizer": appending}, pairs) == scored(BatchEncoded, parts, pairs)
    assert appending("x")["input_ids"][-1] == appending.eos_token_id, "the caller's stays as it was"


def test_the_model_is_scored_as_it_was_given(parts):
    """lm-eval ties the head to the embeddings wherever config.json says so, as this one does."""
    model = copy.deepcopy(parts["pretrained"])
    model.config.tie_word_embeddings = True
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0))
    untied = copy.deepcopy(model)
    untied.config.tie_word_embeddings = False
    requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(PAIRS)]
    found = [BatchEncoded(**parts | {"pretrained": one}).loglikelihood(requests) for one in (model, untied)]
    assert found[0] == found[1] != BatchEncoded(**parts).loglikelihood(requests)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert "tie_weights" not in vars(model)


def asked(*sizes, task="piqa"):
    """Requests with contexts and continuations of so many tokens, two for each question."""
    instances = [
        Instance("loglikelihood", {}, ("", ""), index, metadata=(task, number // 2, 1))
        for index, number in enumerate(range(len(sizes)))
    ]
    encoded = [(("", ""), [5] * context, [6] * continuation) for context, continuation in sizes]
    return list(zip(instances, encoded, strict=True))


def test_a_question_is_cut_if_one_of_its_requests_is_longer_than_the_positions(monkeypatch):
    monkeypatch.setattr(requests_of, "ALLOWED", 1)
    fits, cut = (6, 3), (7, 3)  # the last token is only scored: 9 of 8 + 1
    found = cut_questions(asked(fits, fits, fits, cut, cut, cut, fits, fits), 8, {"piqa": "all"})
    assert found == {"all": Cut(2, 4, 8)}
    assert cut_questions(asked(fits, fits), 8, {}) == {}


def test_questions_of_several_leaves_count_together_and_each_once(monkeypatch):
    monkeypatch.setattr(requests_of, "ALLOWED", 1)
    both = asked((9, 1), (9, 1), task="mmlu_a") + asked((9, 1), (1, 1), task="mmlu_b") + asked((9, 1), task="piqa")
    found = cut_questions(both, 8, {"mmlu_a": "mmlu", "mmlu_b": "mmlu"})
    assert found == {"mmlu": Cut(2, 2, 8), "piqa": Cut(1, 1, 8)}


def test_above_a_share_the_task_is_refused(refused):
    twenty = [(9, 1), (9, 1)] + [(1, 1)] * 38
    assert cut_questions(asked(*twenty), 8, {}) == {"piqa": Cut(1, 20, 8)}
    with refused("1 of 19 questions of piqa", "8 positions", "5 %"):
        cut_questions(asked(*twenty[:-2]), 8, {})


@pytest.mark.parametrize("size", [(0, 2), (2, 0), (2, 9)])
def test_a_question_that_cannot_be_asked_is_refused(refused, size):
    with refused("question 0 of piqa", f"context {size[0]} tokens", f"answer {size[1]}"):
        cut_questions(asked(size), 8, {})


@pytest.mark.parametrize("short", [0, 1])
def test_the_cut_is_lm_evals(parts, short):
    """A question of exactly as many tokens as fit is whole; at one position less, lm-eval takes its first token."""
    model, seen = BatchEncoded(**parts), []
    first = Instance("loglikelihood", {}, ("the cat sat on " * 20, " mat"), 0, metadata=("piqa", 0, 1))
    model._max_length = sum(map(len, model._encode_pair(*first.args))) - 1 - short
    others = [Instance("loglikelihood", {}, ("a", " b"), 0, metadata=("piqa", 1 + index, 1)) for index in range(30)]
    model._model_call = lambda inputs, *_: seen.append(inputs.shape[1]) or parts["pretrained"](inputs).logits
    model.loglikelihood([first, *others])
    assert model.cut == ({"piqa": Cut(1, 31, model.max_length)} if short else {})
    assert max(seen) == model.max_length


def test_positions_are_the_models_whatever_its_family_calls_them(parts):
    model = tiny("mpt", max_seq_len=77)
    del model.config.max_position_embeddings
    assert HFLM(**parts | {"pretrained": model}).max_length == 2048
    assert BatchEncoded(**parts | {"pretrained": model}).max_length == 77
