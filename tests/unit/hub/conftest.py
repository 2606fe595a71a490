"""A hub on loopback that serves stand-ins for all of the paper's sources, and a client that keeps to itself."""

import huggingface_hub.constants
import pytest
from loopback_hub import Repository, running_hub
from stand_ins import serve_paper, write_model

from leap_repro.hub import faults

COMMIT = "c0ffee" * 6 + "c0ff"


@pytest.fixture(scope="session")
def paper_files(tmp_path_factory):
    """The folder with the stand-ins' files."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="session")
def paper_hub(paper_files):
    """All repositories of `scales.paper` under their ids and commits."""
    with running_hub() as hub:
        serve_paper(hub, paper_files)
        yield hub


@pytest.fixture
def isolated(monkeypatch, tmp_path):
    """No token, a cache of its own, no waiting between attempts."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(faults.time, "sleep", lambda seconds: None)


@pytest.fixture
def hub(isolated, monkeypatch, tmp_path):
    """A hub with one small model, `owner/tiny`, that a test may spoil."""
    write_model("qwen2.5-0.5b-mini", tmp_path / "tiny")
    with running_hub() as hub:
        hub.add("model", "owner/tiny", Repository(tmp_path / "tiny", COMMIT, None, {"main": COMMIT, "v1": COMMIT}))
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def payload(tmp_path):
    folder = tmp_path / "payload"
    folder.mkdir()
    return folder
