"""The benchmark of damage tells a refusal, a harmless flip, another result and a crash apart, and undoes its flips."""

import sys
from importlib import import_module

import pandas as pd
import pytest

READER = """\
import argparse, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("--output", type=pathlib.Path)
first, second, third, fourth = pathlib.Path("data.bin").read_bytes()
if first:
    sys.exit(print("error: data.bin is damaged", file=sys.stderr) or 2)
output = parser.parse_args().output
output.mkdir()
(output / "provenance.json").write_text(str(second))
(output / "result").write_text(str(third))
1 / (fourth == 0)
"""


@pytest.fixture
def damage(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    yield import_module("damage")
    for name in ("damage", "kills", "measure"):
        sys.modules.pop(name, None)


@pytest.fixture
def run(tmp_path):
    """A run whose only file is read by a script: it refuses, ignores, uses and stumbles over one byte each."""
    (tmp_path / "reader.py").write_text(READER)
    (tmp_path / "data.bin").write_bytes(bytes(4))
    return tmp_path


@pytest.mark.parametrize(
    ("place", "expected"), enumerate(["refused", "harmless", "silently other", "ended otherwise"]), ids=str
)
def test_each_outcome_is_told_from_the_others(damage, run, place, expected):
    command = [str(run / "reader.py"), "--output", "elsewhere"]
    status, _, good = damage.written(run, command)
    assert status == 0
    assert list(good) == ["result/result"]
    (run / "data.bin").write_bytes(bytes(byte == place for byte in range(4)))
    assert damage.outcome(run, command, good) == expected


def test_flips_hit_single_bits_of_every_byte_and_are_undone(damage, run, monkeypatch):
    monkeypatch.setattr(damage, "ROOT", "")
    reader = damage.Reader("data", ".", "*.bin", "the script/x")
    row = damage.flips_of(run, reader, [str(run / "reader.py")], 24)
    assert row["times"] == 24 == sum(row[name] for name in damage.OUTCOMES)
    assert all(row[name] for name in damage.OUTCOMES)
    assert (run / "data.bin").read_bytes() == bytes(4)


def test_another_name_of_a_flipped_file_stays_good(damage, tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert damage.flip(tmp_path / "a", damage.random.Random(0)) == b"abc"
    flipped = (tmp_path / "a").read_bytes()
    assert sum((x ^ y).bit_count() for x, y in zip(flipped, b"abc", strict=True)) == 1
    assert (tmp_path / "b").read_bytes() == b"abc"


def test_one_row_for_what_several_jobs_read(damage):
    counts = [damage.Counter(refused=2, harmless=1), damage.Counter(refused=3), damage.Counter({"silently other": 1})]
    jobs = [("model", "prune"), ("model", "evaluate"), ("text", "prune")]
    rows = [damage.row(what, "one bit flipped", job, found) for (what, job), found in zip(jobs, counts, strict=True)]
    model, text = damage.merged(rows)
    assert (model["read by"], model["times"], model["refused"], model["harmless"]) == ("prune, evaluate", 6, 5, 1)
    assert text == rows[2]
    assert damage.totals(rows) == "Together 7: 5 refused, 1 harmless, 1 silently other, 0 ended otherwise."


def test_the_published_table_adds_up(damage, project):
    table = pd.read_csv(project / "benchmarks/damage.csv")
    assert (table[list(damage.OUTCOMES)].sum(axis=1) == table["times"]).all()
    assert damage.totals(table.to_dict("records")) in (project / "benchmarks/damage.md").read_text()
