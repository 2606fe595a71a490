"""Stages and library compute with torch's strict determinism, and leave it as it was."""

import pytest
import torch

from leap_repro import evaluate_model, prune_model
from leap_repro.library import evaluate as library_evaluate
from leap_repro.library import prune as library_prune
from leap_repro.models.load import load_tokenizer
from leap_repro.pipeline.stages import evaluate as evaluate_stage
from leap_repro.pipeline.stages import prune as prune_stage


@pytest.fixture
def noted(monkeypatch):
    """`noted(module, name)`: a list that says of each call of that function whether torch was strict in it."""

    def note(module, name):
        seen, real = [], getattr(module, name)

        def watched(*given, **named):
            warns = torch.is_deterministic_algorithms_warn_only_enabled()
            seen.append((torch.are_deterministic_algorithms_enabled() and not warns, torch.backends.fp32_precision))
            return real(*given, **named)

        monkeypatch.setattr(module, name, watched)
        return seen

    return note


def test_both_stages_are_strict_while_they_compute(stage, sources, tmp_path, noted):
    pruned, scored = noted(prune_stage, "write_cell"), noted(evaluate_stage, "perplexity_rows")
    asked = noted(evaluate_stage, "evaluate_tasks")
    given = ("--model", sources / "model", "--module", "magnitude", "--sparsity", "0.5")
    stage("prune", *given, output=tmp_path / "prune")
    stage("harden", "--pruned", tmp_path / "prune", "--rule", "exact", "--cell", "c", output=tmp_path / "harden")
    given = ("--model", sources / "model", "--cell", tmp_path / "harden", "--tasks", sources / "tasks")
    given += ("--text", sources / "perplexity", "--lengths", 32, "--windows", 2, "--questions", 2)
    stage("evaluate", *given, output=tmp_path / "evaluate")
    assert pruned == scored == asked == [(True, "ieee")]
    assert not torch.are_deterministic_algorithms_enabled()


def test_so_is_the_library(sources, noted):
    pruned, scored = noted(library_prune, "write_cell"), noted(library_evaluate, "perplexity_rows")
    asked = noted(library_evaluate, "evaluate_tasks")
    folder = sources / "model/payload"
    result = prune_model(folder, method="magnitude")
    given = {"tasks": "miniature", "text": "miniature", "lengths": [32], "windows": 2, "questions": 2}
    evaluate_model(result, tokenizer=load_tokenizer(folder), **given)
    assert pruned == scored == asked == [(True, "ieee")]
    assert not torch.are_deterministic_algorithms_enabled()
