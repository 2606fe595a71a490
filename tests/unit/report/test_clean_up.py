"""Cleaning up takes what was asked for and nothing else, and a reader learns how to make it again."""

import json

import pytest
import torch

from leap_repro.report.clean_up import main, parser
from leap_repro.sparsity.pruned import PrunedFolder
from leap_repro.store.artifacts import Artifact, writing

CELLS = ["m/wanda/0.5/0", "m/leap/0.5/0"]
KEEP, THETA = torch.eye(4, dtype=torch.bool), torch.eye(4)


def leave(folder, tensors=None):
    with writing(folder, {}) as (payload, facts):
        (payload / "log.parquet").write_bytes(b"rows")
        store = PrunedFolder(payload)
        store.write("block-00000", tensors or {})
        facts["tensors"] = store.finish()


@pytest.fixture
def root(tmp_path):
    """Two models with a shard for calibration, one for training, a one-shot cell with values and a learned one."""
    for model in ("m", "other"):
        for role in ("calibration", "mask_training"):
            with writing(tmp_path / f"calibration/{model}/{role}/0", {}) as (payload, _):
                (payload / "tokens.safetensors").write_bytes(bytes(100))
        for cell in (f"{model}/{cell[2:]}" for cell in CELLS):
            one_shot = {"l.0.weight.keep": KEEP, "l.0.weight.values": THETA}
            leave(tmp_path / "prune" / cell, one_shot if "wanda" in cell else {"l.0.weight.logits": THETA})
    return tmp_path


def clean(root, *kinds, cells=CELLS, more=()):
    given = ["--root", root, "--model", "m", "--cells", *cells, "--kinds", *kinds, *more, "--output", root / "m.json"]
    main(parser().parse_args([str(argument) for argument in given]))
    return json.loads((root / "m.json").read_text())


def payload_files(root):
    return {str(path.relative_to(root)) for path in root.rglob("payload/*")}


TOKENS = "calibration/m/mask_training/0"
LOGITS = "prune/m/leap/0.5/0"


@pytest.mark.parametrize(
    ("kinds", "gone"),
    [
        (["tokens"], {f"{TOKENS}/payload/tokens.safetensors"}),
        (["logits"], {f"{LOGITS}/payload/block-00000.safetensors"}),
        (["tokens", "logits"], {f"{TOKENS}/payload/tokens.safetensors", f"{LOGITS}/payload/block-00000.safetensors"}),
    ],
)
def test_what_is_asked_for_is_deleted_and_nothing_else(root, kinds, gone):
    before = payload_files(root)
    sizes = clean(root, *kinds)
    assert before - payload_files(root) == gone
    assert set(sizes) == {path.partition("/payload")[0] for path in gone}
    assert clean(root, *kinds) == {}


def test_cells_that_were_not_collected_keep_their_logits(root):
    before = payload_files(root)
    assert clean(root, "logits", cells=CELLS[:1]) == {}
    assert payload_files(root) == before


def test_logits_that_another_line_has_still_to_harden_stay_until_it_has(root):
    reader = "m/leap-threshold/0.5/0"
    waiting = ["--readers", json.dumps({CELLS[1]: [reader]})]
    before = payload_files(root)
    assert clean(root, "logits", more=waiting) == {}
    assert payload_files(root) == before
    leave(root / "harden" / reader)
    assert set(clean(root, "logits", more=waiting)) == {LOGITS}


def test_a_reader_is_told_how_to_make_it_again_until_it_is(root, refused):
    clean(root, "tokens")
    shard = Artifact.read(root / TOKENS)
    with refused("tokens.safetensors was deleted by clean_up", f"--force {root / TOKENS}/manifest.json"):
        shard.verified_payload()
    with writing(root / TOKENS, {}) as (payload, _):
        (payload / "tokens.safetensors").write_bytes(bytes(100))
    (shard.payload / "tokens.safetensors").unlink()
    with refused("is missing or differs"):
        shard.verified_payload()
