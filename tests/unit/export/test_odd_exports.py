"""Any tensor comes back from a compressed export to the bit; a damaged or hostile export is refused or the same."""

import copy
import json
import shutil
import struct

import pytest
import torch
from families import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from odd import JSON, change, damaged, values
from outcomes import outcome
from safetensors.torch import load_file, save_file

from leap_repro.export.forms import FORMS, QUANTISED
from leap_repro.export.index import INDEX_FILE, Index, read_file, read_index
from leap_repro.export.load import RUNS, load_pruned
from leap_repro.export.write import _in_parts, unpack
from leap_repro.models.prunable import prunable_linears
from leap_repro.store.hashes import sha256_of
from leap_repro.store.sealed import write_sealed

FILE = "sparse-model.safetensors"
NEW = values(JSON, ["packed", "2:4", FILE, "sparse-/abs.safetensors", "F64", "I16", "BOOL", [1], [2**40, 2**40], {}])
FORMS_READ = FORMS | {"int8": QUANTISED["int8"]}
DTYPES = {
    "packed": [torch.float64, torch.float32, torch.bfloat16, torch.float16],
    "2:4": [torch.bfloat16, torch.float16],
}
FEW = settings(derandomize=True, max_examples=150, deadline=None)


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)


def draw_tensor(data, form):
    """(a tensor that is +0 wherever the mask drops, its mask); what is kept has any bits of finite numbers."""
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from(DTYPES[form]))
    if form == "2:4":
        shape = (32 * data.draw(st.integers(1, 3)), 64 * data.draw(st.integers(1, 2)))
        mask = (torch.rand(shape, generator=generator).view(-1, 4).argsort(dim=1) < 2).view(shape)
    else:
        shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
        mask = torch.rand(shape, generator=generator) < data.draw(st.floats(0, 1))
    tensor = torch.randn(shape, generator=generator, dtype=torch.float64) * 10.0 ** data.draw(st.integers(-9, 3))
    tensor[torch.rand(shape, generator=generator) < 0.2] = -0.0
    return tensor.to(dtype).masked_fill(~mask, 0), mask


@pytest.mark.parametrize("form", FORMS)
def test_any_tensor_comes_back_to_the_bit(form, tmp_path):
    @FEW
    @given(st.data())
    def hold(data):
        tensor, mask = draw_tensor(data, form)
        other = torch.randn(3)
        parts = FORMS[form].encode("w", tensor, mask)
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        (tmp_path / "a").mkdir()
        save_file({f"w.{part}": t.contiguous() for part, t in parts.items()} | {"other": other}, tmp_path / "a" / FILE)
        entry = {"file": FILE, "shape": list(tensor.shape), "kept": int(mask.sum())}
        Index(form, {}, {"w": entry}).write(tmp_path / "a")
        back, _ = read_file(tmp_path / "a", read_index(tmp_path / "a"), FILE)
        assert back.keys() == {"w", "other"}
        assert back["w"].dtype == tensor.dtype
        assert back["w"].shape == tensor.shape
        assert torch.equal(bits(back["w"]), bits(tensor))
        assert torch.equal(back["other"], other)

    hold()


@pytest.fixture(scope="module", params=FORMS_READ)
def export(request, tmp_path_factory):
    """The folder of a small compressed export: a model's, without its card."""
    folder, form = tmp_path_factory.mktemp("odd") / "export", FORMS_READ[request.param]
    model = tiny("llama", hidden_size=64, intermediate_size=64, num_hidden_layers=1, vocab_size=8).to(torch.bfloat16)
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    pruned = {f"{linear.name}": linear.weight for linear in prunable_linears(model)}
    tensors, index = {}, Index(form.name, {}, {}, values="int8" if request.param == "int8" else None)
    for name, tensor in model.state_dict().items():
        if name not in pruned:
            tensors[name] = tensor
            continue
        mask = (torch.rand(tensor.shape).view(-1, 4).argsort(dim=1) < 2).view(tensor.shape)
        parts = index.encode(name, FILE, tensor.masked_fill(~mask, 0), mask, transposed=False)
        tensors |= {f"{name}.{part}": each.contiguous() for part, each in parts.items()}
    assert index.tensors
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
    index.write(folder)
    return folder


def unpacked(folder, output):
    """{file: bytes} of the dense checkpoint."""
    shutil.rmtree(output, ignore_errors=True)
    unpack(folder, output)
    return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.fixture
def trial(export, tmp_path):
    """(a copy to be changed, its bytes unpacked, a function that unpacks it as it is now)"""
    folder = shutil.copytree(export, tmp_path / "trial")
    again = lambda: outcome(unpacked, folder, tmp_path / "out")  # noqa: E731
    good, sentence = again()
    assert sentence is None
    return folder, good, again


@pytest.mark.parametrize("name", [INDEX_FILE, FILE])
def test_damage_is_refused_or_harmless(trial, name):
    folder, good, again = trial
    whole = (folder / name).read_bytes()

    @FEW
    @given(st.data())
    def hold(data):
        (folder / name).write_bytes(damaged(data, whole))
        found, sentence = again()
        assert found == good or str(folder) in sentence

    hold()
    (folder / name).write_bytes(whole)
    assert again() == (good, None)


def test_an_edited_index_is_refused_or_harmless(trial):
    folder, good, again = trial
    whole = json.loads((folder / INDEX_FILE).read_text())

    @FEW
    @given(st.data())
    def hold(data):
        odd = copy.deepcopy(whole)
        change(data, odd, NEW)
        (folder / INDEX_FILE).write_text(json.dumps(odd))
        found, sentence = again()
        assert found == good or str(folder) in sentence

    hold()


def sign(folder, content):
    """Write an index with the file's true sha256 and a true digest of itself, as who means harm can."""
    if isinstance(content.get("files"), dict) and isinstance(content["files"].get(FILE), dict):
        content["files"][FILE]["sha256"] = sha256_of(folder / FILE)
    content.pop("digest", None)
    write_sealed(folder / INDEX_FILE, content)


def test_a_hostile_index_is_refused_or_read_and_writes_nowhere_else(trial):
    folder, _, again = trial
    whole = json.loads((folder / INDEX_FILE).read_text())

    @FEW
    @given(st.data())
    def hold(data):
        odd = copy.deepcopy(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            change(data, odd, NEW)
        sign(folder, odd)
        again()
        assert {path.name for path in folder.parent.iterdir()} <= {"trial", "out"}

    hold()


def with_header(whole, edit):
    """A safetensors file with its header, JSON behind its length in 8 bytes, edited."""
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + whole[8 + length :]


@pytest.mark.parametrize("how", ["edited header", "damaged"])
def test_a_hostile_file_is_refused_or_read(trial, how):
    folder, _, again = trial
    whole, index = (folder / FILE).read_bytes(), json.loads((folder / INDEX_FILE).read_text())

    @FEW
    @given(st.data())
    def hold(data):
        if how == "damaged":
            length = struct.unpack("<Q", whole[:8])[0]
            bad = damaged(data, whole[: 8 + length]) + whole[8 + length :]
        else:
            bad = with_header(whole, lambda header: change(data, header, NEW))
        (folder / FILE).write_bytes(bad)
        sign(folder, copy.deepcopy(index))
        again()

    hold()


def test_a_hostile_export_is_refused_or_loaded(trial):
    """In either way to run it; the second takes the packed one only."""
    folder, _, _ = trial
    whole, index = (folder / FILE).read_bytes(), json.loads((folder / INDEX_FILE).read_text())

    assert load_pruned(folder).lm_head.weight.dtype == torch.bfloat16

    @settings(derandomize=True, max_examples=60, deadline=None)
    @given(st.data())
    def hold(data):
        (folder / FILE).write_bytes(with_header(whole, lambda header: change(data, header, NEW)))
        odd = copy.deepcopy(index)
        if data.draw(st.booleans()):
            change(data, odd, NEW)
        sign(folder, odd)
        for run in RUNS:
            outcome(load_pruned, folder, None, run)

    hold()


@pytest.mark.parametrize("form", [[], {}, None, 3, "dense"])
def test_a_format_that_is_none_is_refused(trial, form):
    folder, _, again = trial
    sign(folder, json.loads((folder / INDEX_FILE).read_text()) | {"format": form})
    _, sentence = again()
    assert f"has format {form!r}" in sentence


def test_a_weight_file_that_the_index_does_not_name_is_refused(trial):
    """`unpack` would copy it, and a part of another model would lie beside this one."""
    folder, _, again = trial
    shutil.copyfile(folder / FILE, folder / "sparse-model-2.safetensors")
    _, sentence = again()
    assert "does not name sparse-model-2.safetensors" in sentence


@pytest.mark.parametrize("what", ["missing_keys", "unexpected_keys", "mismatched_keys"])
def test_weights_that_are_not_the_configurations_are_not_loaded(trial, what):
    folder, _, _ = trial
    tensors, norm = load_file(folder / FILE), "model.norm.weight"
    if what == "missing_keys":
        del tensors[norm]
    else:
        tensors["other" if what == "unexpected_keys" else norm] = torch.ones(3, dtype=torch.bfloat16)
    save_file(tensors, folder / FILE)
    sign(folder, json.loads((folder / INDEX_FILE).read_text()))
    _, sentence = outcome(load_pruned, folder)
    assert what in sentence


@pytest.mark.parametrize("part", ["kept", "mask"])
def test_a_tensor_called_like_a_part_of_another_is_not_written_over(part):
    mask = torch.tensor([True, False])
    tensors = {"w": torch.tensor([1.0, 0.0]), f"w.{part}": torch.zeros(2)}
    _, sentence = outcome(_in_parts, tensors, {"w": mask}, "model.safetensors", Index("packed", {}, {}))
    assert "called like the parts" in sentence
