"""A large file is hashed once and then believed; every change through the file system is noticed at the next reading,
and one that leaves no trace there before long."""

import json
import os

import pytest

from leap_repro.store import hashes
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.hashes import EVERY, KNOWN, sha256_of

CONTENT = bytes(range(256)) * 8


@pytest.fixture(autouse=True)
def hashed(monkeypatch):
    """Files of a kilobyte count as large; the list of those that were hashed."""
    calls = []
    monkeypatch.setattr(hashes, "LARGE", 1024)
    monkeypatch.setattr(hashes, "sha256_of", lambda path: calls.append(path.name) or sha256_of(path))
    return calls


@pytest.fixture
def artifact(tmp_path):
    """A settled artifact with a large file and a small one."""
    with writing(tmp_path / "cell", {}) as (payload, _):
        (payload / "large.bin").write_bytes(CONTENT)
        (payload / "small.bin").write_bytes(b"small")
    found = Artifact.read(tmp_path / "cell")
    for name in found.files:
        age(found.payload / name)
    return found


def age(path, nanoseconds=10**18):
    os.utime(path, ns=(nanoseconds, nanoseconds))


def flip(path):
    """Flip a bit in place, so that inode, size and, after `age`, time stay."""
    with path.open("r+b") as file:
        file.seek(100)
        byte = file.read(1)[0]
        file.seek(100)
        file.write(bytes([byte ^ 4]))


def test_a_large_file_is_hashed_every_sixteenth_time_and_a_small_one_always(artifact, hashed):
    for _ in range(2 * EVERY + 1):
        artifact.verified_payload()
    assert hashed.count("large.bin") == 3
    assert hashed.count("small.bin") == 2 * EVERY + 1


def test_to_be_sure_everything_is_hashed(artifact, hashed):
    for _ in range(3):
        Artifact.read(artifact.folder, to_be_sure=True).verified_payload()
    assert hashed.count("large.bin") == 3


def test_damage_that_leaves_no_trace_is_noticed_before_long_and_at_once_by_who_wants_to_be_sure(artifact, refused):
    artifact.verified_payload()
    flip(artifact.file("large.bin"))
    age(artifact.payload / "large.bin")
    with refused("large.bin"):
        Artifact.read(artifact.folder, to_be_sure=True).verified_payload()
    with refused("large.bin"):
        for _ in range(EVERY):
            artifact.verified_payload()


def edited(path):
    flip(path)


def cut(path):
    path.write_bytes(CONTENT[:-1])
    age(path)


def replaced(path):
    path.rename(path.with_suffix(".old"))
    path.write_bytes(CONTENT[::-1])
    age(path)


@pytest.mark.parametrize("change", [edited, cut, replaced])
def test_a_change_through_the_file_system_is_noticed_at_once(artifact, refused, change):
    artifact.verified_payload()
    change(artifact.payload / "large.bin")
    with refused("large.bin"):
        artifact.verified_payload()


def test_a_file_that_has_just_changed_is_not_believed_yet(artifact, hashed):
    os.utime(artifact.payload / "large.bin")
    artifact.verified_payload()
    artifact.verified_payload()
    assert hashed.count("large.bin") == 2
    assert not (artifact.folder / KNOWN).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"payload/large.bin": {}}', '{"payload/large.bin": 3}'])
def test_a_broken_memory_is_none(artifact, hashed, text):
    (artifact.folder / KNOWN).write_text(text)
    artifact.verified_payload()
    assert hashed.count("large.bin") == 1


def test_a_memory_of_another_hash_is_looked_at_again(artifact, hashed):
    """A bit that flips in the memory does not make a good file a damaged one."""
    artifact.verified_payload()
    known = json.loads((artifact.folder / KNOWN).read_text())
    known["payload/large.bin"]["sha256"] = "0" * 64
    (artifact.folder / KNOWN).write_text(json.dumps(known))
    artifact.verified_payload()
    artifact.verified_payload()
    assert hashed.count("large.bin") == 2


def test_where_nothing_can_be_remembered_everything_is_hashed(artifact, hashed, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("read only")

    monkeypatch.setattr(hashes.tempfile, "mkstemp", refuse)
    artifact.verified_payload()
    artifact.verified_payload()
    assert hashed.count("large.bin") == 2


def test_what_is_written_anew_is_not_known(artifact, hashed):
    artifact.verified_payload()
    with writing(artifact.folder, {}) as (payload, _):
        (payload / "large.bin").write_bytes(CONTENT)
    assert not list(artifact.folder.glob(".*"))
