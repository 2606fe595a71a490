"""The library gives the workflow's bits: masks, values and scores of the stages, from the same tokens."""

import json

import pytest
import torch

from leap_repro import evaluate_model, export_model, prune_model
from leap_repro.export import __main__ as export_command
from leap_repro.models.identity import WEIGHTS
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.sparsity.masks import read_kept_values, unpack_masks
from leap_repro.store.artifacts import Artifact
from leap_repro.store.tokens import open_tokens

LEAP = {"steps": 4, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.01}
WANDA = {"module": "wanda", "options": {}}
CASES = {
    "wanda": ("wanda", {}, {}),
    "wanda 2:4": ("wanda", {"pattern": "2:4"}, {}),
    "sparsegpt": ("sparsegpt", {}, {}),
    "optima": ("optima", {}, {"selector": WANDA}),
    "leap": ("leap", LEAP, {}),
    "leap by its threshold": ("leap", LEAP, {"hardening": "threshold"}),
}


@pytest.fixture(scope="module")
def made(stage, sources, tmp_path_factory):
    """`made("wanda", options, ...)`: the hardened cell that the stages make, each case once."""
    known = {}

    def make(method, options, selector=None, hardening="exact", **starts):
        key = json.dumps([method, options, selector, hardening, {k: str(v.folder) for k, v in starts.items()}])
        if key not in known:
            top = tmp_path_factory.mktemp("cell")
            tokens = sources / ("stream" if method in ("leap", "recover") else "tokens")
            given = ["--model", sources / "model", "--tokens", tokens, "--module", method, "--sparsity", "0.5"]
            given += ["--options", json.dumps(options)] + (["--selector", json.dumps(selector)] if selector else [])
            for name, cell in starts.items():
                given += [f"--{name.replace('_', '-')}", cell.folder]
            stage("prune", *given, output=top / "prune")
            name = f"{method}/0.5/0"
            known[key] = stage(
                "harden", "--pruned", top / "prune", "--rule", hardening, "--cell", name, output=top / "harden"
            )
        return known[key]

    return make


@pytest.fixture(scope="module")
def tokens(sources):
    return {
        "calibration": open_tokens(Artifact.read(sources / "tokens"))[:],
        "training": open_tokens(Artifact.read(sources / "stream"))[:],
    }


def same(pruned, cell):
    masks, values = unpack_masks(cell), read_kept_values(cell)
    assert set(pruned.masks) == set(masks)
    assert set(pruned.values) == set(values)
    for name, mask in masks.items():
        assert torch.equal(pruned.masks[name], mask), name
    for name, moved in values.items():
        assert torch.equal(pruned.values[name], moved), name
    left_out = {"cell", "recovery", WEIGHTS}  # names, digests of manifests that hold them, of files
    assert {k: v for k, v in pruned.cell.facts.items() if k not in left_out} == {
        k: v for k, v in cell.facts.items() if k not in left_out
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("where", ["folder", "memory"])
def test_masks_and_values_are_those_of_the_stages(made, sources, tokens, case, where):
    method, options, more = CASES[case]
    folder = sources / "model/payload"
    model = folder if where == "folder" else load_model(folder)
    before = {} if where == "folder" else {name: w.clone() for name, w in model.state_dict().items()}
    pruned = prune_model(model, method=method, options=options, bits="portable", **tokens, **more)
    same(pruned, made(method, options, **more))
    assert pruned.kept == sum(kept for kept, _ in pruned.counts.values())
    for name, weight in before.items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_a_warm_start_by_name_and_a_recovery_of_a_parent_are_those_of_the_stages(made, sources, tokens):
    folder, wanda = sources / "model/payload", made("wanda", {})
    warm = prune_model(folder, method="leap", options=LEAP, warm_start="wanda", bits="portable", **tokens)
    same(warm, made("leap", LEAP, warm_start=wanda))
    options = {"steps": 2, "batch_size": 4, "micro_batch_size": 2}
    parent = prune_model(folder, bits="portable", **tokens)
    for model in (folder, load_model(folder)):
        recovered = prune_model(model, method="recover", options=options, parent=parent, bits="portable", **tokens)
        same(recovered, made("recover", options, parent=wanda))


def test_texts_are_cut_as_the_calibration_stage_cuts_them(sources, tokens):
    from leap_repro.store.texts import read_texts

    texts = {role: read_texts(Artifact.read(sources / role)) for role in ("calibration", "mask_training")}
    folder = sources / "model/payload"
    by_text = prune_model(folder, calibration=texts["calibration"], sequences=16, length=64)
    assert by_text.facts["tokens_sha256"] == prune_model(folder, **tokens).facts["tokens_sha256"]
    given = {"method": "leap", "options": LEAP}
    trained = prune_model(folder, training=texts["mask_training"], sequences=64, length=64, **given)
    assert trained.facts["tokens_sha256"] == prune_model(folder, **tokens, **given).facts["tokens_sha256"]


def test_scores_are_the_rows_of_the_evaluation_stage(stage, made, sources, tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as the stage sets it, for its process
    given = ["--model", sources / "model", "--cell", made("wanda", {}).folder, "--tasks", sources / "tasks"]
    given += ["--text", sources / "perplexity", "--lengths", 64, 128, "--windows", 6, "--questions", 12]
    written = stage("evaluate", *given, output=tmp_path / "evaluate")
    tokens = open_tokens(Artifact.read(sources / "tokens"))[:]
    pruned = prune_model(sources / "model/payload", calibration=tokens, bits="portable")
    asked = {"tasks": "miniature", "text": "miniature", "lengths": [64, 128], "windows": 6, "questions": 12}
    found = evaluate_model(pruned, bits="portable", **asked)
    assert list(found.rows) == pq.read_table(written.file("metrics.parquet")).to_pylist()
    assert list(found.outcomes) == pq.read_table(written.file("outcomes.parquet")).to_pylist()
    assert set(found.perplexities) == {64, 128}
    assert found.accuracies["average"][0] == pytest.approx(sum(v for v, _ in list(found.accuracies.values())[:6]) / 6)
    model = load_model(sources / "model/payload")
    pruned.apply(model)
    tokenizer = load_tokenizer(sources / "model/payload")
    assert evaluate_model(model, bits="portable", tokenizer=tokenizer, **asked).rows == found.rows


@pytest.mark.parametrize("form", ["dense", "packed", "2:4"])
def test_an_export_has_the_bytes_of_the_command(made, sources, tokens, tmp_path, form):
    method, options, _ = CASES["wanda 2:4"]
    cell, by_command = made(method, options), tmp_path / "command"
    given = ["--model", sources / "model", "--cell", cell.folder, "--format", form, "--output", by_command]
    export_command.main(export_command.parser().parse_args(list(map(str, given))))
    pruned = prune_model(sources / "model/payload", method=method, options=options, bits="portable", **tokens)
    folder = export_model(pruned, tmp_path / "library", format=form)
    files = {path.name for path in by_command.iterdir()}
    assert {path.name for path in folder.iterdir()} == files
    for name in files - {"README.md"}:
        assert (folder / name).read_bytes() == (by_command / name).read_bytes(), name
    assert "wanda" in (folder / "README.md").read_text()
