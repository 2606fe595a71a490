"""`pin` writes what later fetches obey, and what contradicts it is refused by name."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from loopback_hub import Repository
from stand_ins import write_model

from leap_repro.hub.lock import check_lock, lock_digest, read_lock
from leap_repro.models.fetch import fetch_hub
from leap_repro.pipeline import pin as pinning
from leap_repro.pipeline.reading import read_config
from leap_repro.store.hashes import sha256_of

PROJECT = Path(__file__).resolve().parents[3]
SPEC = {"source": "hub", "id": "owner/tiny", "revision": "main"}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A folder with the project's config whose only hub sources are `tiny` and what a test adds; a function that
    writes it."""

    monkeypatch.chdir(tmp_path)

    def write(**models):
        config = read_config(project=PROJECT)
        for scale in ("paper", "open", "cpu"):
            del config["scales"][scale]
        config["scales"]["miniature"]["models"] |= {"tiny": SPEC} | models
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))

    return write


@pytest.fixture
def pin(config, tmp_path):
    """`pin(*names, models...)`: the lock that is then on disk."""

    def run(*names, **models):
        lock = tmp_path / "hub.lock.json"
        config(**models)
        pinning.main(Namespace(config=[], lock=lock, names=list(names)))
        return read_lock(lock)

    return run


def test_a_name_is_resolved_and_every_file_gets_the_sha256_of_its_bytes(hub, pin):
    entry = pin()["models/owner/tiny"]
    served = hub.repositories["models/owner/tiny"]
    assert (entry["asked"], entry["revision"]) == ("main", served.commit)
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(entry["files"])
    for name, file in entry["files"].items():
        path = served.folder / name
        assert file == {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def test_a_fetch_obeys_the_lock_when_the_name_moves_on(hub, pin, payload):
    lock, before = pin(), hub.repositories["models/owner/tiny"]
    hub.requests.clear()
    assert fetch_hub(SPEC, payload, lock) == before.commit
    assert not [path for _, path in hub.requests if path.startswith("/api") or "/main/" in path]


def test_other_bytes_than_the_locked_ones_are_refused_by_name(hub, pin, payload, refused):
    lock = pin()
    lock["models/owner/tiny"]["files"]["config.json"]["sha256"] = "0" * 64
    with refused("config.json of model owner/tiny", "0" * 64, "pin"):
        fetch_hub(SPEC, payload, lock)


def test_a_config_that_asks_for_another_revision_is_refused_by_name(hub, pin, payload, refused):
    lock = pin()
    for revision in ("v1", "d" * 40):
        with refused("model owner/tiny", revision, hub.repositories["models/owner/tiny"].commit, "hub.lock.json"):
            check_lock(lock, {"model": [SPEC | {"revision": revision}]})
    check_lock(lock, {"model": [SPEC, SPEC | {"revision": hub.repositories["models/owner/tiny"].commit}]})


def test_a_name_without_a_lock_is_refused_a_commit_is_not(refused):
    with refused("'main'", "40 digits", "pin"):
        check_lock({}, {"model": [SPEC]})
    check_lock({}, {"model": [SPEC | {"revision": "a" * 40}], "dataset": [{"source": "path", "path": "x"}]})


def test_pinning_one_name_leaves_the_others_alone(hub, pin, tmp_path):
    write_model("gemma3-1b-mini", tmp_path / "second")
    hub.add("model", "owner/second", Repository(tmp_path / "second", "b" * 40, None, {"main": "b" * 40}))
    second = {"source": "hub", "id": "owner/second", "revision": "main"}
    lock = pin(second=second)
    assert set(lock) == {"models/owner/tiny", "models/owner/second"}
    hub.repositories["models/owner/second"].commit = "e" * 40
    assert pin("tiny", second=second) == lock
    changed = pin("second", second=second)
    assert changed["models/owner/second"]["revision"] == "e" * 40
    assert changed["models/owner/tiny"] == lock["models/owner/tiny"]


def test_an_unknown_name_and_two_revisions_of_one_repository_are_refused(hub, pin, refused):
    with refused("'llama'", "tiny"):
        pin("llama")
    with refused("owner/tiny", "two revisions"):
        pin(twin=SPEC | {"revision": "v1"})


def test_a_failing_pin_leaves_the_old_lock(hub, pin, refused, tmp_path):
    lock = pin()
    hub.fault("/api/", 503, times=1000)
    with refused("owner/tiny", "503"):
        pin()
    assert read_lock(tmp_path / "hub.lock.json") == lock


NO_FILES = '{"models/a/b": {"asked": "x", "revision": "y", "files": {"z": 1}}}'


@pytest.mark.parametrize("text", ["{", "[]", '{"models/a/b": {}}', NO_FILES])
def test_a_file_that_is_no_lock_is_refused_by_path(tmp_path, refused, text):
    (tmp_path / "hub.lock.json").write_text(text)
    with refused("hub.lock.json", "not a lock file"):
        read_lock(tmp_path / "hub.lock.json")


def test_the_digest_moves_with_a_sources_own_entries_only():
    entry = {"asked": "main", "revision": "a" * 40, "files": {}}
    lock = {"models/owner/tiny": entry, "models/owner/second": entry}
    digest = lock_digest(lock, SPEC, "model")
    assert lock_digest(json.loads(json.dumps(lock)), SPEC, "model") == digest
    assert lock_digest(lock | {"models/owner/second": entry | {"revision": "b" * 40}}, SPEC, "model") == digest
    assert lock_digest(lock | {"models/owner/tiny": entry | {"revision": "b" * 40}}, SPEC, "model") != digest
    assert lock_digest(lock, {"source": "bundled"}, "model") == lock_digest({}, SPEC, "model") == ""
