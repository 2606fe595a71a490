"""A packed export runs as it lies: the model's scores are those of the dense one, its memory is the packed size."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cells import cell_of
from families import SUPPORTED, tiny
from safetensors.torch import load_file, save_file

from leap_repro import prune_model
from leap_repro.export.index import INDEX_FILE
from leap_repro.export.lineage import Lineage
from leap_repro.export.load import load_pruned
from leap_repro.export.write import export_cell
from leap_repro.models.prunable import prunable_linears
from leap_repro.runtime.linear import PackedLinear
from leap_repro.runtime.model import packed_bytes
from leap_repro.store.artifacts import Artifact
from leap_repro.store.hashes import sha256_of
from leap_repro.store.sealed import read_sealed, write_sealed

BOUND = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
"""How far scores may be from the dense model's, as a share of the largest: of another order of the same sums."""


def export_of(folder, family, dtype=torch.float32, sizes=None, **settings):
    """A packed export of the family's tiny model, or of one of other sizes."""
    model = tiny(family, **(sizes or {}))
    cell = cell_of(model, folder, 0.5)
    model.to(dtype).save_pretrained(folder / "base")
    lineage = Lineage(Artifact(folder / "base", {}, {}), cell)
    export_cell(folder / "base", lineage, folder / "out", form="packed", **settings)
    return folder / "out"


def agree(one, other, bound):
    assert one.dtype == other.dtype
    assert ((one - other).abs().max() / other.abs().max()).item() < bound


@pytest.mark.parametrize("values", [None, "int8"])
@pytest.mark.parametrize("family", SUPPORTED)
def test_every_family_runs(family, values, tmp_path):
    folder = export_of(tmp_path, family, values=values)
    dense, packed = load_pruned(folder), load_pruned(folder, run="packed")
    assert isinstance(packed, type(dense))
    tokens = torch.arange(3, 23).view(2, 10)
    with torch.no_grad():
        agree(packed(tokens).logits, dense(tokens).logits, BOUND[torch.float32])
    asked = {"max_new_tokens": 4, "do_sample": False, "attention_mask": torch.ones_like(tokens)}
    assert torch.equal(packed.generate(tokens, **asked), dense.generate(tokens, **asked))
    assert packed.dtype == dense.dtype
    assert packed.device == dense.device
    assert not any(tensor.is_meta for tensor in [*packed.parameters(), *packed.buffers()])


def test_half_precision_has_the_dense_models_scores_within_rounding(tmp_path):
    folder = export_of(tmp_path, "qwen2", torch.bfloat16)
    dense, packed = load_pruned(folder), load_pruned(folder, run="packed")
    tokens = torch.arange(3, 23).view(2, 10)
    with torch.no_grad():
        agree(packed(tokens).logits, dense(tokens).logits, BOUND[torch.bfloat16])
    assert packed.get_memory_footprint() < dense.get_memory_footprint()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A packed export in bfloat16, with biases and tied embeddings."""
    return export_of(tmp_path_factory.mktemp("packed"), "qwen2", torch.bfloat16)


def test_its_memory_is_the_packed_size(folder):
    """Of the matrices: 16 bits a kept weight, and a bit each, of rows of whole words; a start of 8 rows has 8 bytes."""
    packed = load_pruned(folder, run="packed")
    linears = [module for module in packed.modules() if isinstance(module, PackedLinear)]
    shapes = [(linear.out_features, linear.in_features) for linear in linears]
    assert shapes == [tuple(linear.weight.shape) for linear in prunable_linears(load_pruned(folder))]
    kept = sum(2 * (rows * columns // 2) for rows, columns in shapes)
    bits = sum(rows * 8 * -(-columns // 64) for rows, columns in shapes)
    starts = sum(8 * -(-rows // 8) for rows, _ in shapes)
    assert packed_bytes(packed) == kept + bits + starts
    rest = sum(p.nbytes for p in packed.parameters()) + sum(b.nbytes for b in packed.buffers())
    assert packed.get_memory_footprint() == rest + packed_bytes(packed)


RESIDENT = """
import sys
import torch
from leap_repro.export.load import load_pruned
from leap_repro.runtime.model import packed_bytes

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

small = load_pruned(sys.argv[1], run="packed")
small(torch.arange(10)[None])
before = resident()
model = load_pruned(sys.argv[2], run="packed")
added = resident() - before
rest = model.get_memory_footprint() - packed_bytes(model)
print((added - rest) / packed_bytes(model))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux's /proc")
def test_the_process_grows_by_no_more_than_the_packed_size_and_five_percent(folder, tmp_path):
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 2}
    large = export_of(tmp_path, "llama", torch.bfloat16, sizes)
    command = [sys.executable, "-c", RESIDENT, folder, large]
    share = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 0.95 < share < 1.05


def test_the_bias_is_added_and_stays_a_parameter(folder):
    names = {name for name, _ in load_pruned(folder, run="packed").named_parameters()}
    assert "model.layers.0.self_attn.q_proj.bias" in names
    assert "model.layers.0.self_attn.q_proj.weight" not in names


def test_another_type_is_computed_in(folder):
    packed, dense = load_pruned(folder, "float32", run="packed"), load_pruned(folder, "float32")
    assert packed.dtype == torch.float32
    tokens = torch.arange(3, 23).view(2, 10)
    with torch.no_grad():
        agree(packed(tokens).logits, dense(tokens).logits, BOUND[torch.float32])


def test_a_copy_computes_the_same(folder):
    packed = load_pruned(folder, run="packed")
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(packed)(tokens).logits, packed(tokens).logits)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train(),
        lambda model: model.half(),
        lambda model: model.float(),
        lambda model: model.to(torch.float64),
        lambda model: model.to("cuda"),
        lambda model: model.to("meta"),
        lambda model: model.save_pretrained("somewhere"),
        lambda model: model(inputs_embeds=torch.zeros(1, 2, 32, dtype=torch.bfloat16, requires_grad=True)),
        prune_model,
    ],
    ids=["train", "half", "float", "float64", "cuda", "meta", "save_pretrained", "gradient", "prune"],
)
def test_what_it_cannot_do_is_said_and_leaves_it_as_it_was(folder, refused, change):
    packed, tokens = load_pruned(folder, run="packed"), torch.arange(10)[None]
    with torch.no_grad():
        before = packed(tokens).logits
    with refused("runs packed", "run='dense'"):
        change(packed)
    with torch.no_grad():
        assert torch.equal(packed.eval().to("cpu").to(torch.bfloat16)(tokens).logits, before)


def test_only_a_packed_export_runs_packed(folder, tmp_path, refused):
    tiny("llama").save_pretrained(tmp_path / "plain")
    with refused("plain is a dense checkpoint", "run='packed'"):
        load_pruned(tmp_path / "plain", run="packed")
    with refused("run is 'sparse'", "'packed'"):
        load_pruned(folder, run="sparse")


@pytest.mark.parametrize("part", ["kept", "mask"])
def test_a_file_whose_parts_do_not_fit_is_refused_before_a_kernel_sees_it(folder, tmp_path, refused, part):
    """Under a true sha256, as who means harm can write it."""
    broken = shutil.copytree(folder, tmp_path / "broken")
    name = "sparse-model.safetensors"
    tensors = load_file(broken / name)
    key = next(key for key in tensors if key.endswith(f".{part}"))
    tensors[key] = tensors[key][1:].clone()
    save_file(tensors, broken / name)
    content = read_sealed(broken / INDEX_FILE)
    content["files"][name]["sha256"] = sha256_of(broken / name)
    write_sealed(broken / INDEX_FILE, content)
    with refused(str(broken / name), key.removesuffix(f".{part}")):
        load_pruned(broken, run="packed")


MEASURED = """
import sys
from leap_repro.export.load import load_pruned

def peak():
    text = open("/proc/self/status").read()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024

load_pruned(sys.argv[2], run="packed")
before = peak()
model = load_pruned(sys.argv[1], run=sys.argv[3])
print(peak() - before, model.get_memory_footprint())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_dense_model_is_never_in_memory(folder, tmp_path):
    """The peak of loading, in a process that has loaded the libraries and a model before."""
    sizes = {"hidden_size": 768, "intermediate_size": 4096, "num_hidden_layers": 4}
    large = export_of(tmp_path, "qwen2", torch.bfloat16, sizes)
    for run, over in (("packed", 8 * 2**20), ("dense", None)):
        command = [sys.executable, "-c", MEASURED, str(large), str(folder), run]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rose, footprint = map(int, done.stdout.split())
        assert rose < footprint + over if over else rose > footprint, run
