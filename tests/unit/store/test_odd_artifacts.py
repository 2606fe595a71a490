"""Whatever happens to the files of an artifact, who opens it gets what was written or one sentence that names it."""

import copy
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd import JSON, change, damaged, values
from outcomes import outcome

from leap_repro.store.artifacts import MANIFEST, PROVENANCE, Artifact, writing
from leap_repro.store.tensor_files import save_tensors

PAYLOAD = ["payload/mask.safetensors", "payload/metrics.parquet", "payload/deep/config.json"]
FACTS = {
    "cell": "mini/wanda/0.5/0",
    "kept": 12,
    "share": 0.125,
    "none": None,
    "tensors": [{"shape": [4, 6], "kept": 12}],
}
ORIGIN = {"code": "a" * 64, "parameters": FACTS, "inputs": {"model": "b" * 64}, "versions": {}, "machine": {}}
NEW = values(JSON, ["payload", "mask.safetensors", "c" * 64, [1], {}, {"bytes": 1, "sha256": "d" * 64}])
MANY = settings(derandomize=True, max_examples=250, deadline=None)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd") / "written"
    with writing(folder, ORIGIN) as (payload, facts):
        save_tensors({"w": torch.arange(9, dtype=torch.uint8)}, payload / "mask.safetensors")
        pq.write_table(pa.table({"value": [1.5, 2.5]}), payload / "metrics.parquet")
        (payload / "deep").mkdir()
        (payload / "deep/config.json").write_text('{"layers": 2}')
        facts |= FACTS
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy to be changed."""
    return shutil.copytree(written, tmp_path / "artifact")


def opened(folder):
    """All that a reader can ask of an artifact."""
    artifact = Artifact.read(folder)
    payload = artifact.verified_payload()
    content = {str(path.relative_to(payload)): path.read_bytes() for path in payload.rglob("*") if path.is_file()}
    return artifact.facts, artifact.files, artifact.provenance(), content


@pytest.mark.parametrize("name", [MANIFEST, PROVENANCE, *PAYLOAD])
def test_damage_is_refused_or_harmless(folder, name):
    good, whole = opened(folder), (folder / name).read_bytes()

    @MANY
    @given(st.data())
    def hold(data):
        bad = damaged(data, whole)
        (folder / name).write_bytes(bad)
        found, sentence = outcome(opened, folder)
        assert found == good if bad == whole else str(folder) in sentence

    hold()


@pytest.mark.parametrize("name", [MANIFEST, PROVENANCE])
def test_an_edit_is_refused_or_harmless(folder, name):
    good, whole = opened(folder), json.loads((folder / name).read_text())

    @MANY
    @given(st.data())
    def hold(data):
        odd = copy.deepcopy(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            if odd:
                change(data, odd, NEW)
        (folder / name).write_text(json.dumps(odd, indent=1, sort_keys=True) + "\n")
        found, sentence = outcome(opened, folder)
        assert found == good or str(folder) in sentence

    hold()


def test_what_is_added_moved_or_exchanged_is_refused(written, tmp_path):
    """A reader of whole folders, such as a tokenizer, would take it in."""
    good = opened(written)
    names = [path.removeprefix("payload/") for path in PAYLOAD]

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.sampled_from(["add", "move", "exchange"]), *[st.sampled_from(names)] * 2)
    def hold(how, one, other):
        shutil.rmtree(tmp_path / "artifact", ignore_errors=True)
        folder = shutil.copytree(written, tmp_path / "artifact")
        first, second = folder / "payload" / one, folder / "payload" / other
        if how == "add":
            shutil.copyfile(first, second.with_name(f"more-{second.name}"))
        elif how == "move":
            first.replace(second.with_name(f"more-{second.name}"))
        else:
            content = first.read_bytes()
            first.write_bytes(second.read_bytes())
            second.write_bytes(content)
        found, sentence = outcome(opened, folder)
        assert found == good if how == "exchange" and one == other else str(folder) in sentence

    hold()


def test_what_was_deleted_on_purpose_is_forgotten_once_it_is_made_again(folder):
    """Else a file that is lost later would be said to have been deleted by clean_up."""
    Artifact.read(folder).delete(["metrics.parquet"])
    with writing(folder, ORIGIN) as (payload, facts):
        (payload / "metrics.parquet").write_bytes(b"new")
        facts |= FACTS
    (folder / "payload/metrics.parquet").unlink()
    _, sentence = outcome(opened, folder)
    assert "is missing or differs" in sentence
