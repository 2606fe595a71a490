"""The families of docs/models.md: each is pruned to its budgets by every kind of method, from disk as in memory, and
its export is the base with other numbers; the others are refused."""

import logging
from fractions import Fraction

import families
import pytest
import torch
from families import METHODS, MIXTURES, REFUSED, SUPPORTED, TABLE, tiny
from transformers import AutoModelForCausalLM

from leap_repro.export.lineage import Lineage
from leap_repro.export.write import export_cell
from leap_repro.models.agreement import check_agreement
from leap_repro.models.cell import apply_cell
from leap_repro.models.examine import empty_model
from leap_repro.models.experts import unfused
from leap_repro.models.load import load_model
from leap_repro.models.prunable import prunable_linears, structure
from leap_repro.models.shares import refuse_dense
from leap_repro.models.stream import stream_model
from leap_repro.pipeline.stages.harden import main as harden
from leap_repro.pipeline.stages.harden import parser as harden_parser
from leap_repro.prune.job import Job, Parent
from leap_repro.prune.methods import declaration
from leap_repro.sparsity.pruned import PrunedFolder
from leap_repro.store.artifacts import Artifact, writing

SPARSITY = Fraction("0.6")
TRAINING = {"steps": 2, "batch_size": 4, "micro_batch_size": 2}


@pytest.fixture(scope="module", params=SUPPORTED)
def checkpoint(request, tmp_path_factory):
    """A tiny model of the family as its own checkpoint."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny(request.param).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(3, families.VOCABULARY, (16, 24), generator=torch.Generator().manual_seed(5))


def pruned(method, model, tokens, **more):
    chosen = declaration(method)
    options = chosen.options(**TRAINING) if chosen.trains else chosen.options()
    return chosen.prune_cell(Job(model, options, SPARSITY, seed=0, tokens=tokens, **more))


def test_the_checkpoint_is_its_model_and_little_of_it_stays_dense(checkpoint):
    model = empty_model(checkpoint)
    check_agreement(model, checkpoint)
    refuse_dense(model)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "leap"])
def test_from_disk_as_in_memory_every_matrix_keeps_its_share(method, checkpoint, tokens):
    model, residency = stream_model(checkpoint)
    streamed, whole = pruned(method, model, tokens, residency=residency), pruned(method, load_model(checkpoint), tokens)
    assert streamed.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(streamed.tensors[key], tensor) for key, tensor in whole.tensors.items())
    masks = {key: tensor for key, tensor in whole.tensors.items() if key.endswith(".keep")}
    assert {key.removesuffix(".keep") for key in masks} == {linear.name for linear in prunable_linears(model)}
    assert all(int(mask.sum()) == mask.numel() - round(SPARSITY * mask.numel()) for mask in masks.values())


@pytest.mark.parametrize("rank", [0, 2])
def test_kept_weights_are_recovered_under_their_mask(rank, checkpoint, tokens):
    """Experts' matrices too, which are views of one parameter, in some families transposed."""
    masks = {
        key.removesuffix(".keep"): mask for key, mask in pruned("wanda", load_model(checkpoint), tokens).tensors.items()
    }
    parent = Parent("m/wanda", masks, {}, {"pattern": "unstructured", "budget_scope": "tensor"}, "0.6", "")
    options = declaration("recover").options(**TRAINING, lora_rank=rank, learning_rate=1e-2)
    model = load_model(checkpoint)
    before = {linear.name: linear.weight.clone() for linear in prunable_linears(model)}
    job = Job(model, options, SPARSITY, seed=0, tokens=tokens, parent=parent)
    found = declaration("recover").prune_cell(job).tensors
    moved = {name: (found[f"{name}.values"] != before[name] * mask) for name, mask in masks.items()}
    assert not any((moved[name] & ~mask).any() for name, mask in masks.items())
    assert sum(map(torch.Tensor.any, moved.values())) > 0.9 * len(moved)


def test_masks_and_weights_are_trained_together_to_every_budget(checkpoint, tokens):
    """Experts' matrices too, which are views of one parameter, in some families transposed."""
    options = declaration("elsa").options(**TRAINING, interval=1, learning_rate=1e-2)
    model = load_model(checkpoint)
    before = {linear.name: linear.weight.clone() for linear in prunable_linears(model)}
    found = declaration("elsa").prune_cell(Job(model, options, SPARSITY, seed=0, tokens=tokens)).tensors
    moved = 0
    for name, weight in before.items():
        keep, values = found[f"{name}.keep"], found[f"{name}.values"]
        assert int((~keep).sum()) == round(SPARSITY * keep.numel())
        assert not values[~keep].any()
        moved += bool((values != weight)[keep].any())
    assert moved > 0.9 * len(before)


def test_masks_are_learned_the_same_with_recomputation(checkpoint, tokens):
    cells = []
    for recompute in (False, True):
        leap = declaration("leap")
        options = leap.options(**TRAINING, gradient_checkpointing=recompute)
        cells.append(leap.prune_cell(Job(load_model(checkpoint), options, SPARSITY, seed=0, tokens=tokens)))
    assert all(torch.equal(cells[0].tensors[key], tensor) for key, tensor in cells[1].tensors.items())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in cells[0].tensors.values())


@pytest.mark.parametrize("method", ["sparsegpt", "leap"])
def test_the_export_loads_to_the_logits_of_the_pruned_model(method, checkpoint, tokens, tmp_path):
    with writing(tmp_path / "pruned", {}) as (payload, facts):
        cell = pruned(method, load_model(checkpoint), tokens)
        store = PrunedFolder(payload)
        store.write("pruned", cell.tensors)
        facts |= cell.facts | {"sparsity": "0.6", "seed": 0, "tokens_sha256": None, "tensors": store.finish()}
    arguments = ["--pruned", tmp_path / "pruned", "--cell", "a/cell", "--output", tmp_path / "cell"]
    harden(harden_parser().parse_args([str(argument) for argument in arguments]))
    cell = Artifact.read(tmp_path / "cell")
    export_cell(checkpoint, Lineage(Artifact(checkpoint, {}, {}), cell), tmp_path / "export")
    ours = load_model(checkpoint)
    kept = apply_cell(ours, cell)
    total = cell.facts["prunable"]
    assert kept == total - round(SPARSITY * total) or method == "sparsegpt"
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(theirs(tokens[:2], use_cache=False).logits, ours(tokens[:2], use_cache=False).logits)
    zeros = sum(int((linear.weight == 0).sum()) for linear in prunable_linears(theirs))
    assert zeros >= total - kept


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_one_by_one_give_what_the_model_gives(family, tokens):
    model = tiny(family)
    modules = [linear.module for linear in prunable_linears(model)]
    with torch.no_grad():
        expected = model(tokens[:2], use_cache=False).logits
        for all_tokens in (False, True):
            with unfused(modules, all_tokens):
                torch.testing.assert_close(model(tokens[:2], use_cache=False).logits, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(model(tokens[:2], use_cache=False).logits, expected)


@pytest.mark.parametrize("family", MIXTURES)
def test_routers_are_found_and_never_pruned(family):
    found = structure(tiny(family))
    assert found.routers
    assert not [name for name, _, _ in found.linears if any(name.startswith(f"{r}.") for r in found.routers)]


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_pruned_right_is_refused(family):
    assert "\n" not in families.refusal(family)


def test_the_page_shows_what_is_counted(project):
    logging.disable(logging.WARNING)
    expected = families.table()
    logging.disable(logging.NOTSET)
    again = "`python tests/support/families.py` writes it anew"
    assert TABLE.read_text(encoding="utf-8") == expected, again
    assert expected.strip() in (project / "docs/models.md").read_text(encoding="utf-8"), again
