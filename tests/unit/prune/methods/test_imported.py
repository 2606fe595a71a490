"""Masks of others become cells: the bits that they say, the values that they hold, and nothing of another model."""

import io
import json
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import torch
from families import tiny
from safetensors.torch import load_file, save_file

from leap_repro.models.prunable import prunable_linears
from leap_repro.models.stream import stream_model
from leap_repro.prune.job import Job
from leap_repro.prune.methods import declaration
from leap_repro.store.tensor_files import TensorsInMemory

FAMILIES = ["llama", "mixtral"]


def mask_of(linear):
    torch.manual_seed(len(linear.name) + linear.block)
    return torch.rand(linear.weight.numel()).argsort().view(linear.weight.shape) >= linear.weight.numel() // 2


@pytest.fixture(params=FAMILIES)
def base(request, tmp_path):
    tiny(request.param).save_pretrained(tmp_path / "base")
    return request.param, tmp_path / "base"


def npz_of(folder, family, **changed):
    """Masks as MaskLLM's authors publish them."""
    masks = {f"{n.name}.mask": np.packbits(mask_of(n).numpy().reshape(-1)) for n in prunable_linears(tiny(family))}
    np.savez_compressed(folder / "masks.npz", **(masks | changed))
    return folder / "masks.npz"


def pruned_checkpoint(folder, family, scale=1.0):
    """A dense checkpoint with zeros, its other weights times `scale`."""
    model = tiny(family)
    for linear in prunable_linears(model):
        linear.module.weight.data.mul_(mask_of(linear) * scale)
    model.save_pretrained(folder / "theirs")
    return folder / "theirs"


def imported(base, path, sparsity="0.5", **options):
    method = declaration("imported")
    model, residency = stream_model(base)
    options = method.options(path=str(path), **options)
    job = Job(model, options, Fraction(sparsity), seed=0, residency=residency, store=TensorsInMemory())
    return method.prune_cell(job)


def test_an_npz_gives_its_bits(base, tmp_path):
    family, folder = base
    cell = imported(folder, npz_of(tmp_path, family))
    linears = prunable_linears(tiny(family))
    assert set(cell.tensors) == {f"{linear.name}.keep" for linear in linears}
    assert all(torch.equal(cell.tensors[f"{linear.name}.keep"], mask_of(linear)) for linear in linears)
    assert cell.facts["budget_scope"] == "none"


@pytest.mark.parametrize("scale", [1.0, 1.5], ids=["masked", "moved"])
def test_a_checkpoint_gives_its_zeros_and_what_it_moved(base, tmp_path, scale):
    family, folder = base
    cell = imported(folder, pruned_checkpoint(tmp_path, family, scale))
    for linear in prunable_linears(tiny(family)):
        keep = cell.tensors[f"{linear.name}.keep"]
        assert torch.equal(keep, mask_of(linear))
        values = cell.tensors.get(f"{linear.name}.values")
        assert (values is None) == (scale == 1.0)
        if values is not None:
            assert torch.equal(values[keep], (linear.weight * scale)[keep])


def test_a_pattern_is_completed_where_the_base_is_zero_itself(tmp_path):
    model = tiny("llama")
    for linear in prunable_linears(model):
        linear.module.weight.data.view(-1, 4)[:] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    model.save_pretrained(tmp_path / "base")
    cell = imported(tmp_path / "base", tmp_path / "base", pattern="2:4")
    for name, keep in cell.tensors.items():
        assert bool((keep.view(-1, 4) == torch.tensor([True, True, False, False])).all()), name


@pytest.mark.parametrize("key", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
def test_what_no_mask_touches_must_be_the_bases(tmp_path, refused, key):
    tiny("llama").save_pretrained(tmp_path / "base")
    theirs = pruned_checkpoint(tmp_path, "llama")
    tensors = load_file(theirs / "model.safetensors")
    save_file(tensors | {key: tensors[key] + 1}, theirs / "model.safetensors", metadata={"format": "pt"})
    with refused(str(theirs), key, "another"):
        imported(tmp_path / "base", theirs)


def test_a_norm_in_a_block_must_be_the_bases_too(tmp_path, refused):
    tiny("llama").save_pretrained(tmp_path / "base")
    theirs, key = pruned_checkpoint(tmp_path, "llama"), "model.layers.1.input_layernorm.weight"
    tensors = load_file(theirs / "model.safetensors")
    save_file(tensors | {key: tensors[key] * 2}, theirs / "model.safetensors", metadata={"format": "pt"})
    with refused(key):
        imported(tmp_path / "base", theirs)


def test_another_sparsity_than_the_line_says_is_refused(tmp_path, refused):
    tiny("llama").save_pretrained(tmp_path / "base")
    with refused("drops 50.00 %", "60 %"):
        imported(tmp_path / "base", pruned_checkpoint(tmp_path, "llama"), sparsity="0.6")


def test_an_npz_of_another_model_or_a_damaged_one_is_refused(tmp_path, refused):
    tiny("llama").save_pretrained(tmp_path / "base")
    name = "model.layers.0.self_attn.q_proj.weight"
    for changed, words in (
        ({f"{name}.mask": np.zeros(3, np.uint8)}, [name, "uint8 [3]"]),
        ({"model.embed_tokens.weight.mask": np.zeros(3, np.uint8)}, ["model.embed_tokens"]),
    ):
        path = npz_of(tmp_path, "llama", **changed)
        with refused(str(path), *words):
            imported(tmp_path / "base", path)
    with refused("masks.npz", "mask for each matrix"):
        imported(tmp_path / "base", npz_of(tmp_path, "opt"))
    (tmp_path / "masks.npz").write_bytes(b"no zip")
    with refused("masks.npz"):
        imported(tmp_path / "base", tmp_path / "masks.npz")
    np.savez(tmp_path / "masks.npz", **{f"{name}.mask": np.array([{}], dtype=object)})
    with refused("masks.npz"):
        imported(tmp_path / "base", tmp_path / "masks.npz")


def with_entry(path, name, content):
    """The .npz with other bytes under one name."""
    with zipfile.ZipFile(path) as file:
        entries = {entry: file.read(entry) for entry in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for entry, data in (entries | {name: content}).items():
            file.writestr(entry, data)


def npy(shape, dtype="|u1", data=b""):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": dtype, "fortran_order": False, "shape": shape})
    return head.getvalue() + data


@pytest.mark.parametrize(
    "content",
    [npy((10**15,)), npy((2**31, 2**31, 4)), npy((512,), "<f8"), npy((128,)), b"", b"\x93NUMPY\x09\x00", b"[" * 9999],
    ids=["huge", "huge in parts", "another type", "too short", "empty", "another version", "brackets"],
)
def test_an_entry_that_is_not_what_it_says_is_refused_before_it_is_read(tmp_path, refused, content):
    tiny("llama").save_pretrained(tmp_path / "base")
    path = npz_of(tmp_path, "llama")
    with_entry(path, "model.layers.0.self_attn.q_proj.weight.mask.npy", content)
    with refused("masks.npz"):
        imported(tmp_path / "base", path)


def test_an_npy_under_the_name_of_an_npz_is_refused(tmp_path, refused):
    tiny("llama").save_pretrained(tmp_path / "base")
    (tmp_path / "masks.npz").write_bytes(npy((4,), data=b"\0" * 4))
    with refused("masks.npz"):
        imported(tmp_path / "base", tmp_path / "masks.npz")


@pytest.mark.parametrize("path", ["", "no-such.npz", "no-such-folder"])
def test_a_path_that_is_not_there_is_refused(tmp_path, refused, path):
    with refused("options.path", repr(path)):
        _ = declaration("imported").options(path=path).files


def test_a_checkpoint_of_another_size_is_refused(tmp_path, refused):
    tiny("llama").save_pretrained(tmp_path / "base")
    tiny("llama", intermediate_size=32).save_pretrained(tmp_path / "theirs")
    with refused("theirs", "LlamaForCausalLM"):
        imported(tmp_path / "base", tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs/config.json").read_text())["intermediate_size"] == 32


def test_what_the_base_has_not_is_refused(tmp_path, refused):
    """As biases that make up for what was dropped: masks and values alone would score another model."""
    tiny("llama").save_pretrained(tmp_path / "base")
    tiny("llama", attention_bias=True).save_pretrained(tmp_path / "theirs")
    with refused("theirs", "only one of them has", "bias"):
        imported(tmp_path / "base", tmp_path / "theirs")


@pytest.mark.parametrize(("key", "value"), [("rms_norm_eps", 0.5), ("hidden_act", "gelu")])
def test_a_pass_of_another_kind_is_refused(tmp_path, refused, key, value):
    tiny("llama").save_pretrained(tmp_path / "base")
    tiny("llama", **{key: value}).save_pretrained(tmp_path / "theirs")
    with refused("theirs", key, str(value)):
        imported(tmp_path / "base", tmp_path / "theirs")


def test_a_folder_without_weights_is_refused(tmp_path, refused):
    tiny("llama").save_pretrained(tmp_path / "base")
    (tmp_path / "theirs").mkdir()
    with refused("theirs", "an .npz file, or a folder with safetensors"):
        imported(tmp_path / "base", tmp_path / "theirs")


def larger_half(linear):
    sizes = linear.weight.detach().abs().flatten()
    return (sizes.argsort().argsort() >= len(sizes) // 2).view(linear.weight.shape)


def npz_by_size(folder, change):
    """Magnitude's masks, each as `change` leaves it."""
    masks = {f"{n.name}.mask": change(larger_half(n).numpy().reshape(-1)) for n in prunable_linears(tiny("llama"))}
    np.savez_compressed(folder / "masks.npz", **masks)
    return folder / "masks.npz"


@pytest.fixture
def plain(tmp_path):
    tiny("llama").save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def test_inverted_masks_are_refused(plain, tmp_path, refused):
    with refused("masks.npz", "times as large as those that they drop", "invert its bits"):
        imported(plain, npz_by_size(tmp_path, lambda bits: np.packbits(~bits)))


def test_masks_in_another_bit_order_are_told(plain, tmp_path, caplog):
    imported(plain, npz_by_size(tmp_path, np.packbits))
    assert not caplog.records
    imported(plain, npz_by_size(tmp_path, lambda bits: np.packbits(bits, bitorder="little")))
    assert "the first weight is in the highest bit" in caplog.text
