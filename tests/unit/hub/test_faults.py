"""What a hub can do to a fetch: it recovers with the right bytes, or ends with a sentence that says what to do."""

import json
import os
import subprocess
import sys

import huggingface_hub.constants
import pytest
from loopback_hub import running_hub

from leap_repro.errors import UserError
from leap_repro.hub.client import listing
from leap_repro.hub.faults import ATTEMPTS
from leap_repro.hub.lock import entry_of, key
from leap_repro.hub.pin import pin_repository
from leap_repro.hub.repository import Repository
from leap_repro.models.fetch import fetch_hub
from leap_repro.store.hashes import sha256_of

WEIGHTS = "model.safetensors"
FETCHED = {"config.json", "generation_config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"}
TOKEN = "hf_aTokenThatNobodyMaySee"


@pytest.fixture
def spec(hub):
    return {"source": "hub", "id": "owner/tiny", "revision": hub.repositories["models/owner/tiny"].commit}


def whole(payload, hub):
    served = hub.repositories["models/owner/tiny"].folder
    return sha256_of(payload / WEIGHTS) == sha256_of(served / WEIGHTS)


@pytest.mark.parametrize(
    "name",
    ["code.py", "config.py", "tokenizer.py", "model.safetensors.py", "sub/config.json", "tokenizer.pkl", "model.bin"],
)
def test_code_and_pickles_of_a_repository_are_not_asked_for(hub, spec, payload, name):
    path = hub.repositories["models/owner/tiny"].folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('this ran')")
    fetch_hub(spec, payload, {})
    assert {path.name for path in payload.iterdir()} == FETCHED
    assert not [asked for _, asked in hub.requests if asked.endswith(name)]


def test_only_weights_tokenizer_and_configuration_are_fetched(hub, spec, payload):
    assert fetch_hub(spec, payload, {}) == spec["revision"]
    assert {path.name for path in payload.iterdir()} == FETCHED
    assert whole(payload, hub)
    assert not [path for _, path in hub.requests if "original" in path or path.endswith((".bin", ".md"))]


@pytest.mark.parametrize("kind", ["drop", "short", "flip", 500, 502, 503, 504, 429, 408])
@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_passing_fault_is_survived(hub, spec, payload, kind, name):
    hub.fault(name, kind, times=2)
    fetch_hub(spec, payload, {})
    assert whole(payload, hub)
    assert not any(fault.times for fault in hub.faults)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_fault_before_the_transfer_is_survived(hub, spec, payload, status):
    hub.fault(WEIGHTS, status, times=2, method="HEAD")
    hub.fault("/api/models/owner/tiny/tree", status, times=2)
    fetch_hub(spec, payload, {})
    assert whole(payload, hub)


def test_a_file_that_is_damaged_in_the_cache_is_fetched_anew(hub, spec, payload, tmp_path):
    fetch_hub(spec, payload, {})
    (blob,) = {path.resolve() for path in (tmp_path / "cache").rglob(WEIGHTS)}
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    again = tmp_path / "again"
    again.mkdir()
    fetch_hub(spec, again, {})
    assert whole(again, hub)


LASTING = [
    ("drop", (WEIGHTS, "no connection", "HF_ENDPOINT")),
    ("short", (WEIGHTS, "wrong size", "proxy")),
    ("flip", (WEIGHTS, f"damaged {ATTEMPTS} times", "digest")),
    (401, ("HF_TOKEN",)),
    (403, ("403", "HF_TOKEN")),
    (429, ("429", "HF_TOKEN")),
    (500, ("500", "later")),
    (503, ("503", "later")),
]


@pytest.mark.parametrize(("kind", "words"), LASTING, ids=[str(kind) for kind, _ in LASTING])
def test_a_lasting_fault_ends_in_one_sentence_and_leaves_no_weights(hub, spec, payload, refused, kind, words):
    hub.fault(WEIGHTS, kind, times=10_000)
    with refused("owner/tiny", *words):
        fetch_hub(spec, payload, {})
    assert not (payload / WEIGHTS).exists()
    assert len(hub.requests) < 150


def test_finished_files_are_kept_for_the_next_call(hub, spec, payload, refused):
    hub.fault(WEIGHTS, 500, times=10_000)
    with refused("500"):
        fetch_hub(spec, payload, {})
    hub.faults.clear()
    hub.requests.clear()
    for path in payload.iterdir():
        path.unlink()
    fetch_hub(spec, payload, {})
    assert whole(payload, hub)
    assert not [path for method, path in hub.requests if method == "GET" and path.endswith("tokenizer.json")]


def test_a_gated_model_says_what_to_accept_and_which_variable_holds_the_token(hub, spec, payload, refused, monkeypatch):
    hub.repositories["models/owner/tiny"].token = "hf_right"
    with refused("gated", f"{hub.endpoint}/owner/tiny", "HF_TOKEN", "make a token"):
        fetch_hub(spec, payload, {})
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with refused("gated", "the account of the token", "accept its terms"):
        fetch_hub(spec, payload, {})
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    fetch_hub(spec, payload, {})
    assert whole(payload, hub)


def test_a_missing_repository_a_wrong_revision_and_a_missing_file_are_told_apart(hub, spec, payload, refused):
    with refused("knows no model owner/gone", "HF_TOKEN"):
        fetch_hub(spec | {"id": "owner/gone"}, payload, {})
    with refused("owner/tiny", "no revision", "d" * 40):
        fetch_hub(spec | {"revision": "d" * 40}, payload, {})
    (hub.repositories["models/owner/tiny"].folder / WEIGHTS).unlink()
    with refused("owner/tiny", "model*.safetensors"):
        fetch_hub(spec, payload, {})


def test_no_network_says_so(hub, spec, payload, refused, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with refused("no connection to http://127.0.0.1:9", "network"):
        fetch_hub(spec, payload, {})


def test_something_that_is_no_hub_says_so(hub, spec, payload, refused):
    hub.fault("resolve", 200, times=10_000, method="HEAD")
    with refused("does not answer as a model hub does", "HF_ENDPOINT"):
        fetch_hub(spec, payload, {})


def test_offline_takes_what_is_in_the_cache_and_says_what_is_not(hub, spec, payload, refused, monkeypatch, tmp_path):
    repository, files = pin_repository(Repository("model", spec["id"], spec["revision"]), None)
    lock = {key(repository): entry_of(repository, spec["revision"], files)}
    fetch_hub(spec, payload, lock)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    again = tmp_path / "again"
    again.mkdir()
    fetch_hub(spec, again, lock)
    assert whole(again, hub)
    assert not hub.requests
    with refused("HF_HUB_OFFLINE", "owner/tiny"):
        fetch_hub(spec, again, {})
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with refused("not in the cache", "HF_HUB_OFFLINE"):
        fetch_hub(spec, again, lock)


@pytest.mark.parametrize("right", [False, True])
def test_the_token_is_in_no_output_and_no_file(hub, spec, tmp_path, right):
    hub.repositories["models/owner/tiny"].token = TOKEN if right else "hf_another"
    hub.fault(WEIGHTS, "flip")
    variables = {"HF_TOKEN": TOKEN, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    command = [
        sys.executable,
        "-m",
        "leap_repro.pipeline",
        "models",
        "--spec",
        json.dumps(spec),
        "--output",
        tmp_path / "out",
    ]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode == 0) is right
    assert right or "is gated" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


def test_the_token_does_not_follow_a_next_page_to_another_host(hub, spec, monkeypatch):
    """The other host is given the request, and no token with it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    asked = Repository("model", spec["id"], spec["revision"])
    with running_hub() as other:
        other.add("model", "owner/tiny", hub.repositories["models/owner/tiny"])
        hub.next_page = f"{other.endpoint}/api/models/owner/tiny/tree/{spec['revision']}"
        assert listing(asked)
        assert other.requests
        assert set(other.tokens) == {None}
    assert f"Bearer {TOKEN}" in hub.tokens


def test_a_password_in_the_hubs_address_is_not_printed(hub, monkeypatch, refused):
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint.replace("://", "://somebody:secret@"))
    hub.fault("/api/models", 404, times=9)
    with pytest.raises(UserError) as caught:
        listing(Repository("model", "owner/none", "main"))
    assert "secret" not in str(caught.value)
    assert "secret" not in Repository("model", "owner/none", "main").page
