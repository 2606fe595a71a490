"""What the library's functions refuse, in one sentence, and what they do with a model in memory."""

import copy

import pytest
import torch

from leap_repro import evaluate_model, export_model, prune_model
from leap_repro.export.load import load_pruned
from leap_repro.models.prunable import prunable_linears

IDS = torch.arange(64).view(4, 16)


@pytest.fixture
def model(build_tiny):
    return build_tiny("llama")


@pytest.fixture(scope="module")
def pruned(build_tiny):
    return prune_model(build_tiny("llama"), calibration=IDS)


REFUSED = {
    "method": ({"method": "wandas"}, ("wandas", "wanda")),
    "option": ({"options": {"exponent": 2}}, ("exponent",)),
    "sparsity": ({"sparsity": 1.5}, ("1.5", "[0, 1)")),
    "no calibration": ({"calibration": None}, ("calibration", "wanda")),
    "no training": ({"method": "leap"}, ("training", "leap")),
    "one text": ({"calibration": "a text"}, ("calibration", "list of texts")),
    "texts without a tokenizer": ({"calibration": ["a text"]}, ("tokenizer",)),
    "floats": ({"calibration": torch.ones(2, 4)}, ("calibration", "float32")),
    "a row": ({"calibration": [1, 2, 3]}, ("calibration", "[sequences, length]")),
    "a word": ({"calibration": {"ids": 3}}, ("calibration", "dict")),
    "negative ids": ({"calibration": [[1, -1]]}, ("calibration",)),
    "foreign ids": ({"calibration": [[1, 64]]}, ("calibration", "vocabulary")),
    "no start": ({"warm_start": "magnitude"}, ("warm_start", "wanda")),
    "no parent": ({"method": "optima"}, ("selector", "parent")),
    "a parent by name": ({"method": "optima", "parent": "wanda"}, ("parent", "str", "prune_model")),
    "no selector": ({"method": "optima", "selector": "leap"}, ("leap", "one-shot")),
    "warm start": ({"method": "leap", "training": IDS, "warm_start": "leap"}, ("warm_start", "one-shot")),
    "too long": ({"length": 4096}, ("length", "4096", "64 positions")),
    "hardening": ({"hardening": "hard"}, ("hard", "exact", "threshold")),
    "dtype": ({"dtype": "float8"}, ("dtype", "float8", "float32")),
    "another dtype": ({"dtype": "bfloat16"}, ("dtype", "bfloat16", "float32")),
    "bits": ({"bits": "exact"}, ("bits", "exact", "native")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_in_one_sentence(refused, model, case):
    given, words = REFUSED[case]
    with refused(*words):
        prune_model(model, **({"calibration": IDS} | given))


def test_what_is_no_model_is_refused(refused, model, pruned, tmp_path):
    for given in ("no-such-folder", tmp_path, 3):
        with refused(str(given) if given != 3 else "int"):
            prune_model(given, calibration=IDS)
    with refused("tasks", "text"):
        evaluate_model(model)
    with refused("tokenizer"):
        evaluate_model(model, text=["some text"])
    with refused("format", "sparse", "packed"):
        export_model(pruned, tmp_path / "x", format="sparse")
    with refused("dtype", "int4"):
        export_model(pruned, tmp_path / "x", dtype="int4")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with refused("not empty"):
        export_model(pruned, tmp_path / "full")


def test_portable_bits_are_refused_in_sixteen_bits(refused, model):
    with refused("portable", "bfloat16"):
        prune_model(model.to(torch.bfloat16), calibration=IDS, bits="portable")


@pytest.mark.parametrize("start", ["warm_start", "parent", "budgets"])
def test_results_of_another_model_are_refused(refused, pruned, start):
    """By name, and where names are the same, by shape."""
    methods = {"warm_start": "leap", "parent": "optima", "budgets": "magnitude"}
    given = {"method": methods[start], "calibration": IDS, "training": IDS, start: pruned}
    with refused("another model"):
        prune_model("llama3.2-1b-mini", **given)
    smaller = prune_model("qwen2.5-0.5b-mini", method="magnitude")
    with refused("another model"):
        prune_model("llama3.2-1b-mini", **given | {start: smaller})


def test_masks_of_another_model_are_not_applied(refused, pruned, build_tiny):
    with refused("another model"):
        pruned.apply(build_tiny("opt"))


def test_a_model_in_memory_stays_as_it_is_until_it_is_asked_to_change(model):
    model.train()
    next(iter(model.parameters())).requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    settings = [(p.requires_grad, model.training, model.config.use_cache) for p in model.parameters()]
    pruned = prune_model(model, method="sparsegpt", calibration=IDS)
    assert [(p.requires_grad, model.training, model.config.use_cache) for p in model.parameters()] == settings
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    copied = pruned.load()
    assert pruned.apply(model) == pruned.kept
    for linear in prunable_linears(model):
        assert torch.equal(linear.weight != 0, pruned.masks[linear.name])
        assert torch.equal(linear.weight[pruned.masks[linear.name]], pruned.values[linear.name])
    for name, weight in copied.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])


def test_what_is_said_of_a_result(pruned):
    assert pruned.sparsity == 0.5
    assert pruned.shares["sparsity_of_prunable"] == 0.5
    assert pruned.shares["sparsity_of_model"] < pruned.shares["sparsity_of_blocks"] < 0.5
    assert (pruned.bits, pruned.tokens) == ("native", (4, 16))
    assert sorted(row["tensor"] for row in pruned.log) == sorted(pruned.counts)
    assert pruned.facts["budget_scope"] == "tensor"
    assert not pruned.values


def test_a_model_in_memory_is_exported_and_read_again(pruned, tokenizer, tmp_path):
    folder = export_model(pruned, tmp_path / "out", format="packed", license="mit")
    for name, weight in load_pruned(folder).state_dict().items():
        assert torch.equal(weight, pruned.load().state_dict()[name]), name
    text = (folder / "README.md").read_text()
    assert "license: mit" in text
    assert "float32, native bits" in text
    assert "4 sequences of 16 tokens" in text


def test_its_files_go_with_it(build_tiny):
    pruned = prune_model(build_tiny("llama"), method="magnitude")
    folder = pruned.cell.folder
    assert folder.is_dir()
    del pruned
    assert not folder.exists()
