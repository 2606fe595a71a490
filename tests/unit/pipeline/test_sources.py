"""What a prune job reads: cells of its own model only, and hashed for good once they have been read."""

import argparse
import os

import pytest
from runs import CELL, MODEL, put_cell, put_model

from leap_repro.pipeline.stages.prune import CELLS, read_sources, verify_again
from leap_repro.store import hashes
from leap_repro.store.artifacts import writing

NAMES = ("model", "tokens", "held_out", *CELLS)


def asked(root, **folders):
    given = dict.fromkeys(NAMES) | {"model": root / "models" / MODEL}
    return argparse.Namespace(**given | {name: root / folder for name, folder in folders.items()})


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_of_another_fine_tune_is_refused(tmp_path, refused, name):
    put_model(tmp_path)
    put_cell(tmp_path, CELL)
    arguments = asked(tmp_path, **{name: f"harden/{CELL}"})
    assert set(read_sources(arguments)) == {"model", name}
    put_model(tmp_path, b"another")
    with refused(f"cell {CELL} was made from weights"):
        read_sources(arguments)


def test_a_shard_that_was_damaged_while_it_was_trained_on_is_noticed(tmp_path, monkeypatch, refused):
    """A bit that flips on the disk changes neither size nor time: a reading that believes does not see it."""
    monkeypatch.setattr(hashes, "LARGE", 8)
    put_model(tmp_path)
    with writing(tmp_path / "shard", {}) as (payload, _):
        (payload / "tokens.safetensors").write_bytes(bytes(100))
    path = tmp_path / "shard/payload/tokens.safetensors"
    os.utime(path, ns=(10**18, 10**18))
    sources = read_sources(asked(tmp_path, tokens="shard"))
    sources["tokens"].verified_payload()
    with path.open("r+b") as file:
        file.seek(50)
        file.write(b"\1")
    os.utime(path, ns=(10**18, 10**18))
    assert sources["tokens"].verified_payload(), "believed"
    with refused(str(path)):
        verify_again(sources)
