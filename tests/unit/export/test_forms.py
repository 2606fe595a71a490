"""Compressed forms: the same bits back, the size that theory says, damage refused, and none taken for a dense one."""

import json
import random

import pytest
import torch
from families import tiny
from safetensors.torch import load_file, save_file
from torch.sparse import SparseSemiStructuredTensorCUTLASS
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass
from transformers import AutoModelForCausalLM

from leap_repro.export.forms import FORMS, Packed, TwoFour
from leap_repro.export.index import Index, read_file, read_index
from leap_repro.export.lineage import Lineage
from leap_repro.export.load import load_pruned
from leap_repro.export.write import export_cell, unpack, weight_bytes
from leap_repro.models.prunable import prunable_linears
from leap_repro.pipeline.stages.harden import main as harden
from leap_repro.pipeline.stages.harden import parser
from leap_repro.sparsity.pruned import PrunedFolder
from leap_repro.store.artifacts import Artifact, writing

SIZES = {"hidden_size": 64, "intermediate_size": 128}  # whole tiles of the 2:4 kernel
KEPT = {"packed": 0.4, "2:4": 0.5}
PATTERN = {"packed": "unstructured", "2:4": "2:4"}


def two_of_four(shape):
    """A random mask that keeps two of each four."""
    return (torch.rand(shape).view(-1, 4).argsort(dim=1) < 2).view(shape)


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 9), (1, 1)])
def test_packed_gives_the_same_bits_back(dtype, shape):
    torch.manual_seed(0)
    tensor, mask = torch.randn(shape).to(dtype), torch.rand(shape) < 0.4
    tensor.view(-1)[::3] = -0.0  # kept zeros, with their sign
    tensor.masked_fill_(~mask, 0)
    back = Packed().decode(Packed().encode("w", tensor, mask), list(shape))
    assert torch.equal(bits(back), bits(tensor))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_two_four_is_what_torch_makes_of_the_dense_matrix(dtype):
    torch.manual_seed(0)
    mask = two_of_four((96, 192))
    tensor = torch.randn(mask.shape).to(dtype).masked_fill(~mask, 0)
    parts = TwoFour().encode("w", tensor, mask)
    values, meta = sparse_semi_structured_from_dense_cutlass(tensor)
    assert torch.equal(parts["values"], values)
    assert torch.equal(parts["meta"], meta)
    kernel = SparseSemiStructuredTensorCUTLASS(tensor.shape, parts["values"], parts["meta"], None, None, None)
    assert torch.equal(kernel.to_dense(), tensor)
    tensor.view(-1)[::5] = -0.0
    tensor.masked_fill_(~mask, 0)
    assert torch.equal(bits(TwoFour().decode(TwoFour().encode("w", tensor, mask), [96, 192])), bits(tensor))


@pytest.mark.parametrize(
    ("tensor", "keep", "words"),
    [
        (torch.zeros(32, 64), two_of_four((32, 64)), "float32"),
        (torch.zeros(32, 60, dtype=torch.float16), two_of_four((32, 60)), "[32, 60]"),
        (torch.zeros(30, 64, dtype=torch.float16), two_of_four((30, 64)), "[30, 64]"),
        (torch.zeros(2, 32, 64, dtype=torch.float16), two_of_four((2, 32, 64)), "[2, 32, 64]"),
        (torch.zeros(32, 64, dtype=torch.float16), torch.ones(32, 64, dtype=torch.bool), "two of each four"),
    ],
)
def test_two_four_refuses_what_the_kernel_would(tensor, keep, words, refused):
    with refused("some.weight", words):
        TwoFour().encode("some.weight", tensor, keep)


def cell_of(model, folder, form):
    """A hardened cell of random masks of the form's pattern."""
    torch.manual_seed(0)
    tensors = {}
    for linear in prunable_linears(model):
        shape, numel = linear.weight.shape, linear.weight.numel()
        keep = torch.rand(numel).argsort() < round(0.4 * numel) if form == "packed" else two_of_four(shape)
        tensors[f"{linear.name}.keep"] = keep.view(shape)
    with writing(folder / "pruned", {}) as (payload, facts):
        store = PrunedFolder(payload)
        store.write("pruned", tensors)
        facts |= {"tensors": store.finish()}
        facts |= {"sparsity": f"{1 - KEPT[form]:g}", "seed": 0, "tokens_sha256": None}
        facts |= {"pattern": PATTERN[form], "budget_scope": "none"}
    arguments = ["--pruned", folder / "pruned", "--cell", "a/cell", "--output", folder / "cell"]
    harden(parser().parse_args([str(argument) for argument in arguments]))
    return Artifact.read(folder / "cell")


@pytest.fixture(
    scope="module", params=[("llama", "packed"), ("llama", "2:4"), ("mixtral", "packed"), ("gpt_oss", "packed")]
)
def exports(request, tmp_path_factory):
    """(base, dense export, compressed export, form)"""
    family, form = request.param
    folder = tmp_path_factory.mktemp("exports")
    tiny(family, **SIZES).to(torch.bfloat16).save_pretrained(folder / "base")
    lineage = Lineage(Artifact(folder / "base", {}, {}), cell_of(tiny(family, **SIZES), folder, form))
    export_cell(folder / "base", lineage, folder / "dense")
    export_cell(folder / "base", lineage, folder / "small", form=form)
    return folder, form


def test_it_loads_in_one_line_to_the_dense_exports_bits(exports):
    folder, _ = exports
    theirs, ours = AutoModelForCausalLM.from_pretrained(folder / "dense"), load_pruned(folder / "small")
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    for (name, a), (other, b) in zip(theirs.state_dict().items(), ours.state_dict().items(), strict=True):
        assert name == other
        assert a.dtype == b.dtype
        assert torch.equal(bits(a), bits(b)), name
    tokens = torch.arange(20)[None]
    assert torch.equal(ours(tokens).logits, theirs.eval()(tokens).logits)
    assert not ours.training


def test_unpacked_it_is_the_dense_export_to_the_byte(exports, tmp_path):
    folder, _ = exports
    unpack(folder / "small", tmp_path / "again")
    files = {path.name: path.read_bytes() for path in (folder / "dense").iterdir()}
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert files.keys() == again.keys()
    for name in files.keys() - {"README.md"}:
        assert files[name] == again[name], name
    assert "| format | dense" in again["README.md"].decode()


def test_the_size_is_what_theory_says(exports):
    """Of what is pruned: kept values of 16 bits and a bit a weight; 2:4: half the values and 4 bits for each 4."""
    folder, form = exports
    index = json.loads((folder / "small/sparse.json").read_text())
    numel = sum(torch.Size(entry["shape"]).numel() for entry in index["tensors"].values())
    prunable = sum(
        linear.weight.numel() for linear in prunable_linears(AutoModelForCausalLM.from_pretrained(folder / "dense"))
    )
    assert numel == prunable
    saved = 2 * numel * (1 - KEPT[form] - 1 / 16)
    found = weight_bytes(folder / "dense") - weight_bytes(folder / "small")
    header = 200 * len(index["tensors"])  # of the file, which has a name for each part
    assert abs(found - saved) <= header
    assert KEPT[form] + 1 / 16 == {"packed": 0.4625, "2:4": 0.5625}[form]


def test_what_knows_dense_checkpoints_only_does_not_load_it(exports):
    folder, _ = exports
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForCausalLM.from_pretrained(folder / "small")


@pytest.mark.parametrize("form", FORMS)
def test_damage_is_refused(form, tmp_path, refused):
    tiny("llama", **SIZES).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    lineage = Lineage(Artifact(tmp_path / "base", {}, {}), cell_of(tiny("llama", **SIZES), tmp_path, form))
    folder = tmp_path / "small"
    export_cell(tmp_path / "base", lineage, folder, form=form)
    path, index = folder / "sparse-model.safetensors", json.loads((folder / "sparse.json").read_text())
    index.pop("digest")  # as an earlier release wrote it: what it says is checked all the same
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(5):
        bad = bytearray(whole)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        with refused("sparse-model.safetensors", "sha256"):
            load_pruned(folder)
    path.write_bytes(whole)
    name = next(iter(index["tensors"]))
    for key, value in (("shape", [3, 5]), ("shape", "x"), ("file", "other")):
        bad = index | {"tensors": index["tensors"] | {name: index["tensors"][name] | {key: value}}}
        (folder / "sparse.json").write_text(json.dumps(bad))
        with refused(str(folder)):
            load_pruned(folder)
    for text, words in (("{", "not an index"), (json.dumps(index | {"version": 9}), "version 9")):
        (folder / "sparse.json").write_text(text)
        with refused("sparse.json", words):
            unpack(folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    "name", ["sparse-/abs/model.safetensors", "sparse-../up.safetensors", "model.safetensors", "sparse-.safetensors"]
)
def test_a_file_name_that_leads_out_of_the_folder_is_refused(name, tmp_path, refused):
    index = {"format": "packed", "files": {name: {"bytes": 1, "sha256": "0"}}, "tensors": {}, "version": 1}
    (tmp_path / "small").mkdir()
    (tmp_path / "small/config.json").write_text("{}")
    (tmp_path / "small/sparse.json").write_text(json.dumps(index))
    for read in (load_pruned, lambda folder: unpack(folder, tmp_path / "out")):
        with refused("sparse.json", repr(name)):
            read(tmp_path / "small")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [[2**30, 2**30], [True, 4], [4.0, 4], {"0": 4}, [5, 8], [4, 16]])
def test_a_shape_that_the_parts_do_not_have_is_refused(shape, tmp_path, refused):
    """Also where a mask with fewer bits than weights would read as zeros for the rest."""
    parts = Packed().encode("w", torch.ones(4, 8), torch.ones(4, 8, dtype=torch.bool))
    save_file({f"w.{part}": tensor for part, tensor in parts.items()}, tmp_path / "sparse-a.safetensors")
    index = Index("packed", {}, {"w": {"file": "sparse-a.safetensors", "shape": shape, "kept": 32}})
    index.write(tmp_path)
    with refused(str(tmp_path)):
        read_file(tmp_path, read_index(tmp_path), "sparse-a.safetensors")


@pytest.mark.parametrize("shape", [[3, 8], [4, 9]])
def test_a_mask_of_another_length_is_refused_though_it_keeps_as_many(shape):
    keep = torch.arange(32).view(4, 8) < 8
    with pytest.raises(ValueError, match="4 bytes of mask"):
        Packed().decode(Packed().encode("w", torch.ones(4, 8), keep), shape)


@pytest.mark.parametrize("values", [7, 9])
def test_a_value_for_each_bit_and_no_other_is_asked_for(values):
    parts = Packed().encode("w", torch.ones(4, 8), torch.arange(32).view(4, 8) < 8)
    with pytest.raises(ValueError, match=f"{values} values for a mask that keeps 8"):
        Packed().decode(parts | {"kept": torch.ones(values)}, [4, 8])


def test_a_plain_folder_is_read_from_safetensors_only_and_a_mistyped_one_is_named(tmp_path, refused):
    with refused(str(tmp_path / "typo"), "config.json"):
        load_pruned(tmp_path / "typo")
    model = tiny("llama")
    model.save_pretrained(tmp_path / "pickled")
    (tmp_path / "pickled/model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pickled/pytorch_model.bin")
    with refused(str(tmp_path / "pickled")):
        load_pruned(tmp_path / "pickled")


def test_no_code_of_a_plain_folder_runs(tmp_path, refused, monkeypatch):
    tiny("llama").save_pretrained(tmp_path / "own")
    config = json.loads((tmp_path / "own/config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (tmp_path / "own/config.json").write_text(json.dumps(config))
    (tmp_path / "own/mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with refused(str(tmp_path / "own")):
        load_pruned(tmp_path / "own")
    assert not (tmp_path / "ran").exists()


def test_the_parts_are_where_the_page_says(tmp_path):
    """By hand, from docs/export-formats.md alone."""
    import numpy as np

    tiny("llama", **SIZES).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    lineage = Lineage(Artifact(tmp_path / "base", {}, {}), cell_of(tiny("llama", **SIZES), tmp_path, "packed"))
    export_cell(tmp_path / "base", lineage, tmp_path / "dense")
    export_cell(tmp_path / "base", lineage, tmp_path / "small", form="packed")
    name = "model.layers.1.mlp.down_proj.weight"
    parts, dense = (load_file(next((tmp_path / each).glob("*.safetensors"))) for each in ("small", "dense"))
    flat = dense[name].flatten().float().numpy()
    mask = np.unpackbits(parts[f"{name}.mask"].numpy())[: flat.size].astype(bool)
    assert (flat[~mask] == 0).all()
    assert (flat[mask] == parts[f"{name}.kept"].float().numpy()).all()
