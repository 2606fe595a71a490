"""A folder with a manifest is whole, and damage after that is noticed and named."""

import collections
import itertools
import json
import os
import random
import signal
import time

import pytest

from leap_repro.errors import UserError
from leap_repro.store.artifacts import MANIFEST, PROVENANCE, Artifact, writing
from leap_repro.store.atomic import write_json, write_text
from leap_repro.store.sealed import DIGEST, read_sealed, write_sealed

CONTENT = {"a.bin": b"\x00\x01\x02", "deep/b.txt": b"two"}


def leave(folder, content=CONTENT, provenance=None, facts=None):
    with writing(folder, provenance or {"code": "1"}) as (payload, recorded):
        for name, data in content.items():
            (payload / name).parent.mkdir(parents=True, exist_ok=True)
            (payload / name).write_bytes(data)
        recorded |= facts or {"n": 3}
    return folder


def fail_to_leave(folder):
    with writing(folder, {}) as (payload, _):
        (payload / "half.bin").write_bytes(b"half")
        raise RuntimeError("killed")


def test_what_was_written_is_read_back(tmp_path):
    artifact = Artifact.read(leave(tmp_path / "cell"))
    assert artifact.facts == {"n": 3}
    assert {name: artifact.file(name).read_bytes() for name in artifact.files} == CONTENT
    assert {name: entry["bytes"] for name, entry in artifact.files.items()} == {"a.bin": 3, "deep/b.txt": 3}


def test_an_artifact_is_opened_by_its_folder_or_its_manifest(tmp_path):
    folder = leave(tmp_path / "cell")
    assert Artifact.read(folder) == Artifact.read(folder / MANIFEST) == Artifact.read(str(folder))


def test_an_exception_leaves_neither_a_manifest_nor_a_stray_folder(tmp_path, refused):
    with pytest.raises(RuntimeError, match="killed"):
        fail_to_leave(tmp_path / "cell")
    assert list((tmp_path / "cell").iterdir()) == []
    with refused(str(tmp_path / "cell"), MANIFEST):
        Artifact.read(tmp_path / "cell")


def test_a_failed_second_run_takes_the_first_manifest_away(tmp_path, refused):
    folder = leave(tmp_path / "cell")
    with pytest.raises(RuntimeError, match="killed"):
        fail_to_leave(folder)
    assert not list(folder.glob(".payload-*"))
    with refused(MANIFEST):
        Artifact.read(folder)


def test_a_second_run_leaves_nothing_of_the_first(tmp_path):
    leave(tmp_path / "cell", {"old.bin": b"old"})
    artifact = Artifact.read(leave(tmp_path / "cell"))
    assert sorted(path.name for path in artifact.payload.iterdir()) == ["a.bin", "deep"]
    assert sorted(path.name for path in artifact.folder.iterdir()) == [MANIFEST, "payload", PROVENANCE]


def test_the_manifest_says_nothing_of_the_provenance(tmp_path):
    one = leave(tmp_path / "one", provenance={"code": "1"})
    two = leave(tmp_path / "two", content=dict(reversed(CONTENT.items())), provenance={"code": "2"})
    assert (one / MANIFEST).read_bytes() == (two / MANIFEST).read_bytes()
    assert Artifact.read(one).manifest_sha256 == Artifact.read(two).manifest_sha256
    assert Artifact.read(two).provenance() == {"code": "2"}


@pytest.mark.parametrize("change", [{"content": {"a.bin": b"\x00\x01\x03"}}, {"facts": {"n": 4}}])
def test_other_content_or_facts_give_another_manifest(tmp_path, change):
    one, two = leave(tmp_path / "one"), leave(tmp_path / "two", **change)
    assert Artifact.read(one).manifest_sha256 != Artifact.read(two).manifest_sha256


@pytest.mark.parametrize("name", list(CONTENT))
def test_one_changed_byte_is_noticed_and_its_file_named(tmp_path, refused, name):
    artifact = Artifact.read(leave(tmp_path / "cell"))
    path = artifact.payload / name
    data = bytearray(path.read_bytes())
    data[1] ^= 1
    path.write_bytes(data)
    with refused(str(path)):
        artifact.file(name)
    with refused(str(path)):
        artifact.verified_payload()
    assert all(artifact.file(other) for other in CONTENT if other != name)


def test_a_missing_file_and_one_that_the_manifest_does_not_list_are_refused_by_name(tmp_path, refused):
    artifact = Artifact.read(leave(tmp_path / "cell"))
    (artifact.payload / "a.bin").unlink()
    with refused("a.bin"):
        artifact.file("a.bin")
    with refused("extra.bin"):
        artifact.file("extra.bin")


def added_file(payload):
    (payload / "deep/added_tokens.json").write_text("{}")


def added_folder(payload):
    (payload / "mmlu_virology").mkdir()


def added_link(payload):
    (payload / "mmlu_virology").symlink_to(payload / "deep")


def hidden_behind_a_link(payload):
    (payload / "deep").rename(payload.parent / "elsewhere")
    (payload.parent / "elsewhere/more.txt").write_text("")
    (payload / "deep").symlink_to(payload.parent / "elsewhere")


@pytest.mark.parametrize("add", [added_file, added_folder, added_link, hidden_behind_a_link])
def test_what_no_manifest_lists_is_refused_by_name_whoever_opens_the_folder(tmp_path, refused, add):
    """A tokenizer reads every file that it knows by name, lm-eval every subject that is there."""
    folder = leave(tmp_path / "cell")
    before = {path for path in (folder / "payload").rglob("*")}
    add(folder / "payload")
    (new,) = {*(folder / "payload").rglob("*"), *(folder / "payload/deep").glob("*")} - before
    with refused(str(new), "delete it"):
        Artifact.read(folder)


def test_what_snakemake_leaves_in_an_output_is_no_stranger(tmp_path):
    folder = leave(tmp_path / "cell")
    (folder / "payload/.snakemake_timestamp").touch()
    assert Artifact.read(folder).verified_payload()


FACTS = {"parameters": 1234567, "revision": "a" * 40, "share": 0.125, "none": None, "label": "Müller", "10": [1, 2]}


@pytest.mark.parametrize("name", [MANIFEST, PROVENANCE])
def test_every_flipped_bit_of_a_manifest_and_of_a_provenance_is_refused(tmp_path, name):
    folder = leave(tmp_path / "cell", facts=FACTS, provenance={"parameters": FACTS, "code": "1"})
    good = (folder / name).read_bytes()
    for place, bit in itertools.product(range(len(good)), range(8)):
        bad = bytearray(good)
        bad[place] ^= 1 << bit
        (folder / name).write_bytes(bad)
        with pytest.raises(UserError, match=f"{name}.*delete"):
            Artifact.read(folder).provenance()
    (folder / name).write_bytes(good)
    assert Artifact.read(folder).provenance()["parameters"] == FACTS


def test_what_an_earlier_release_wrote_is_refused_and_said_to_be(tmp_path, refused):
    folder = leave(tmp_path / "cell")
    write_json(folder / MANIFEST, {"facts": {}, "files": {}})
    with refused(str(folder / MANIFEST), "an earlier release", f"delete {folder}"):
        Artifact.read(folder)


def test_a_sealed_file_of_another_kind_is_no_manifest(tmp_path, refused):
    write_sealed(tmp_path / MANIFEST, {"code": "1"})
    with refused("is not a manifest", "['code']"):
        Artifact.read(tmp_path)


def test_a_sealed_file_says_what_was_written_as_json_says_it(tmp_path):
    write_sealed(tmp_path / "a.json", {"b": {2: (1.5, None)}, "10": 1e-300})
    assert read_sealed(tmp_path / "a.json") == {"b": {"2": [1.5, None]}, "10": 1e-300}
    assert DIGEST in json.loads((tmp_path / "a.json").read_text())


def write_until_killed(folder, over):
    """Write two versions in turn in a process of its own, and kill it when `over(seconds)` says so; its seconds."""
    started, process = time.perf_counter(), os.fork()
    if process == 0:
        for turn in itertools.count():
            leave(folder, VERSIONS[turn % 2], facts={"version": turn % 2})
    while not over(time.perf_counter() - started):
        time.sleep(0.0005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return time.perf_counter() - started


KILLS, MOST_KILLS = 60, 600
VERSIONS = [{"a.bin": bytes(300_000), "deep/b.txt": b"one"}, {"a.bin": bytes([1]) * 300_000, "c.txt": b"two"}]


def test_what_is_killed_at_any_moment_is_whole_or_absent(tmp_path):
    rng, folder = random.Random(0), tmp_path / "cell"
    one_write = write_until_killed(tmp_path / "first", lambda _: (tmp_path / "first" / MANIFEST).exists())
    left = collections.Counter()
    while left.total() < KILLS or (len(left) < 2 and left.total() < MOST_KILLS):
        moment = rng.uniform(0, 2 * one_write)
        write_until_killed(folder, lambda seconds, moment=moment: seconds >= moment)
        try:
            artifact = Artifact.read(folder)
        except UserError:
            left["absent"] += 1
            continue
        left["whole"] += 1
        expected = VERSIONS[artifact.facts["version"]]
        assert {name: artifact.file(name).read_bytes() for name in artifact.files} == expected
    assert left["absent"]
    assert left["whole"]
    leave(folder)
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "payload", PROVENANCE]


@pytest.mark.parametrize("text", ["", "{", "{}", '{"facts": {}}', "[]", "null"])
def test_a_broken_manifest_is_refused_by_its_folder(tmp_path, refused, text):
    (tmp_path / MANIFEST).write_text(text)
    with refused(str(tmp_path)):
        Artifact.read(tmp_path)


def test_text_that_cannot_be_written_leaves_the_old_text_and_no_temporary_file(tmp_path):
    write_text(tmp_path / "deep" / "x.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "deep" / "x.txt", "\ud800")
    assert (tmp_path / "deep" / "x.txt").read_text() == "old"
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_json_is_the_same_whatever_the_order_of_its_keys(tmp_path):
    write_json(tmp_path / "one.json", {"a": 1, "b": 2})
    write_json(tmp_path / "two.json", {"b": 2, "a": 1})
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
