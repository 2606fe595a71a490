"""Requests tokenised all at once are lm-eval's own, token by token."""

from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import leap_repro
from leap_repro.evaluate.requests import BatchEncoded
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


def test_no_request_is_tokenised_by_itself(parts, monkeypatch):
    model = BatchEncoded(**parts)
    monkeypatch.setattr(model, "_loglikelihood_tokens", lambda requests, **options: requests)
    monkeypatch.setattr(HFLM, "tok_encode", lambda *arguments, **options: pytest.fail("one by one"))
    assert len(model.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in PAIRS[:4]])) == 4
