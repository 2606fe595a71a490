"""A model of the hub: its branch becomes a commit once for a run folder, and its card tells the licence."""

import json

import pytest
from loopback_hub import Repository, running_hub
from stand_ins import write_model

from leap_repro.hub.card import licence_of
from leap_repro.hub.repository import Repository as Asked
from leap_repro.own_model.__main__ import licence, parser, pin
from leap_repro.own_model.overlay import overlay

COMMIT = "c0ffee" * 6 + "c0ff"
SOURCE = {"source": "hub", "id": "owner/tiny", "revision": "main"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    write_model("qwen2.5-0.5b-mini", tmp_path / "tiny")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with running_hub() as hub:
        hub.add("model", "owner/tiny", Repository(tmp_path / "tiny", COMMIT, None, {"main": COMMIT}))
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def test_a_branch_is_pinned_once_and_a_commit_not_at_all(hub, config, tmp_path):
    path = tmp_path / "overlay.yaml"
    path.write_text(json.dumps(overlay(parser().parse_args(["owner/tiny", "--output", "o"]), config, on_gpu=False)))
    pin(SOURCE | {"revision": COMMIT}, "owner-tiny", tmp_path, path)
    assert not (tmp_path / "hub.lock.json").exists()
    pin(SOURCE, "owner-tiny", tmp_path, path)
    lock = json.loads((tmp_path / "hub.lock.json").read_text())
    assert lock["models/owner/tiny"]["revision"] == COMMIT
    asked = len(hub.requests)
    pin(SOURCE, "owner-tiny", tmp_path, path)
    assert len(hub.requests) == asked
    assert licence(SOURCE, tmp_path) is None


def test_a_licence_that_nobody_can_tell_is_none(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert licence_of(Asked("model", "owner/tiny", COMMIT)) is None


def test_a_branch_of_nothing_is_refused(hub, config, tmp_path, refused):
    path = tmp_path / "overlay.yaml"
    asked = parser().parse_args(["owner/none", "--output", "o"])
    path.write_text(json.dumps(overlay(asked, config, on_gpu=False)))
    with refused("owner/none"):
        pin(SOURCE | {"id": "owner/none"}, "owner-none", tmp_path, path)
