"""A model that runs packed is scored as any other: by lm-eval's own HFLM and by evaluate_model, as the dense export."""

import pytest
import torch
from cells import cell_of
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from leap_repro import evaluate_model
from leap_repro.export.lineage import Lineage
from leap_repro.export.load import load_pruned
from leap_repro.export.write import export_cell
from leap_repro.miniature.bundled import bundled_models
from leap_repro.miniature.text import pages
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.store.artifacts import Artifact

BASE = bundled_models()["llama3.2-1b-mini"]
BOUND = {"float32": 1e-4, "bfloat16": 0.3}
"""Of a continuation's log-likelihood, a sum of about twenty tokens' of about 2 each."""


@pytest.fixture(scope="module", params=[None, "int8"])
def folder(request, tmp_path_factory):
    """A packed export of a miniature; what it keeps are its own values, so that it still answers questions."""
    folder = tmp_path_factory.mktemp("scores")
    lineage = Lineage(Artifact(BASE, {}, {}), cell_of(load_model(BASE), folder, 0.9))
    export_cell(BASE, lineage, folder / "out", dtype="float32", form="packed", values=request.param)
    return folder / "out"


@pytest.mark.parametrize("dtype", BOUND)
def test_lm_evals_own_class_takes_it(folder, dtype):
    tokenizer, scores = load_tokenizer(folder), []
    texts = [page[:120] for page in list(pages("test", 40))[:16]]
    asked = [Instance("loglikelihood", {}, (text[:60], text[60:]), 0) for text in texts]
    for run in ("dense", "packed"):
        model = HFLM(pretrained=load_pruned(folder, dtype, run=run), tokenizer=tokenizer, batch_size=8)
        scores.append(torch.tensor([score for score, _ in model.loglikelihood(asked, disable_tqdm=True)]))
    assert (scores[0] - scores[1]).abs().max() < BOUND[dtype]
    assert scores[0].std() > 1


def test_its_accuracies_and_perplexity_are_the_dense_models(folder):
    asked = {"tasks": "miniature", "questions": 20, "text": "miniature", "lengths": [64], "windows": 8}
    dense, packed = (
        evaluate_model(load_pruned(folder, run=run), tokenizer=load_tokenizer(folder), **asked)
        for run in ("dense", "packed")
    )
    assert packed.outcomes == dense.outcomes
    assert packed.accuracies == dense.accuracies
    assert packed.perplexities[64][0] == pytest.approx(dense.perplexities[64][0], rel=1e-5)
