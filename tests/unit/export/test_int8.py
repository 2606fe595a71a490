"""int8 values: rounded by the row and no further than half a step, as small as theory says, zeros where they were."""

import json
import math

import numpy as np
import pytest
import torch
from cells import cell_of
from families import tiny
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from leap_repro.export.forms import PackedInt8, form_of
from leap_repro.export.lineage import Lineage
from leap_repro.export.load import load_pruned
from leap_repro.export.write import export_cell, unpack, weight_bytes
from leap_repro.models.cell import apply_cell
from leap_repro.models.prunable import prunable_linears
from leap_repro.store.artifacts import Artifact
from leap_repro.store.sealed import read_sealed, write_sealed

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
KEPT = 0.4


def drawn(shape, dtype, scale=1.0):
    """(a tensor that is 0 where its mask drops, the mask)"""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(shape, generator=generator) < KEPT
    tensor = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return tensor.to(dtype).masked_fill(~mask, 0), mask


@pytest.mark.parametrize("scale", [1.0, 1e-6, 300.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_each_weight_is_rounded_to_its_rows_nearest_step(dtype, scale):
    """By NumPy in float64 from the parts; float16 of 1e-6 has rows of subnormal numbers."""
    tensor, mask = drawn((7, 40), dtype, scale)
    tensor[3], mask[3] = 0, False
    tensor[4, 5], mask[4, 5] = 20 * scale, True  # an outlier
    parts = PackedInt8().encode("w", tensor, mask)
    assert parts["scales"].dtype == dtype
    codes = np.zeros(mask.shape)
    codes[mask.numpy()] = parts["kept"].numpy()
    steps, exact = parts["scales"].double().numpy()[:, None], tensor.double().numpy()
    assert (np.abs(codes * steps - exact) <= steps / 2 * (1 + 1e-12)).all()
    assert np.abs(codes).max() <= 127
    largest = np.abs(exact).max(axis=1, keepdims=True)
    one_up = np.spacing(np.array(1.0)) if dtype == torch.float64 else torch.finfo(dtype).eps
    least = torch.finfo(dtype).tiny * torch.finfo(dtype).eps  # the smallest subnormal number
    assert (steps <= largest / 127 * (1 + one_up) + least).all()
    back = PackedInt8().decode(parts, list(tensor.shape))
    assert back.dtype == dtype
    assert torch.equal(back, torch.from_numpy(codes * steps).to(dtype))
    assert torch.equal(back == 0, torch.from_numpy(codes == 0))


@pytest.fixture(scope="module", params=["llama", "mixtral", "gpt_oss"])
def exports(request, tmp_path_factory):
    """(folder with base and exports, the model as it is pruned)"""
    folder = tmp_path_factory.mktemp("int8")
    model = tiny(request.param).to(torch.bfloat16)
    model.save_pretrained(folder / "base")
    lineage = Lineage(Artifact(folder / "base", {}, {}), cell_of(tiny(request.param), folder, KEPT))
    export_cell(folder / "base", lineage, folder / "small", form="packed", values="int8")
    unpack(folder / "small", folder / "dense")
    apply_cell(model, lineage.cell)
    return folder, model


def test_the_size_is_a_byte_a_kept_weight_and_a_bit_each(exports):
    """Kept share x 8 + 1 bits a weight; apart from that a scale of 16 bits a row, and a mask's last byte."""
    folder, model = exports
    index = json.loads((folder / "small/sparse.json").read_text())
    parts = load_file(folder / "small/sparse-model.safetensors")
    weights = bits = 0
    for key, entry in index["tensors"].items():
        numel, rows = math.prod(entry["shape"]), math.prod(entry["shape"][:-1])
        own = {part: parts[f"{key}.{part}"] for part in PackedInt8.parts}
        assert own["mask"].nbytes == -(-numel // 8)
        assert own["scales"].nbytes == 2 * rows
        weights += numel
        bits += 8 * (own["kept"].nbytes + own["mask"].nbytes)
        assert len(own["kept"]) == entry["kept"]
    stay = sum(round(KEPT * linear.weight.numel()) for linear in prunable_linears(model))
    assert bits == 8 * stay + weights
    assert bits / weights == pytest.approx(8 * KEPT + 1, rel=1e-3)
    assert weight_bytes(folder / "small") < weight_bytes(folder / "dense")


def test_zeros_recounted_from_the_written_file_are_those_of_the_mask_and_of_rounding(exports):
    folder, model = exports
    index = json.loads((folder / "small/sparse.json").read_text())
    dense = AutoModelForCausalLM.from_pretrained(folder / "dense")
    became = sum(entry["became_zero"] for entry in index["tensors"].values())
    before = after = 0
    for one, other in zip(prunable_linears(model), prunable_linears(dense), strict=True):
        dropped = one.weight == 0
        assert (other.weight[dropped] == 0).all(), one.name
        before, after = before + int(dropped.sum()), after + int((other.weight == 0).sum())
        exact, steps = one.weight.float(), one.weight.float().abs().amax(dim=1, keepdim=True) / 127
        allowed = 0.51 * steps + exact.abs() / 250  # half a step, whose scale is a bfloat16, as is the weight then
        assert ((exact - other.weight.float()).abs() <= allowed).all(), one.name
    assert after - before == became > 0
    card = (folder / "small/README.md").read_text()
    assert f"| kept values that this rounding set to 0 | {became:,} of " in card
    assert "| values | int8, a scale for each row |" in card
    assert "| values | int8" in (folder / "dense/README.md").read_text()


def test_the_unpacked_checkpoint_is_what_load_pruned_gives(exports):
    folder, _ = exports
    theirs, ours = AutoModelForCausalLM.from_pretrained(folder / "dense"), load_pruned(folder / "small")
    for (name, a), b in zip(theirs.state_dict().items(), ours.state_dict().values(), strict=True):
        assert a.dtype == b.dtype == torch.bfloat16
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "change", [{"version": 1}, {"values": "int4"}, {"values": ["int8"]}, {"format": "2:4"}, {"version": 3}]
)
def test_an_index_that_says_another_layout_is_refused(exports, tmp_path, refused, change):
    folder, _ = exports
    content = read_sealed(folder / "small/sparse.json") | change
    for path in (folder / "small").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "sparse.json").unlink()
    write_sealed(tmp_path / "sparse.json", content)
    with refused(str(tmp_path), "this version reads"):
        load_pruned(tmp_path)


def test_plain_values_stay_version_1(tmp_path):
    tiny("llama").save_pretrained(tmp_path / "base")
    lineage = Lineage(Artifact(tmp_path / "base", {}, {}), cell_of(tiny("llama"), tmp_path, KEPT))
    export_cell(tmp_path / "base", lineage, tmp_path / "small", form="packed")
    index = json.loads((tmp_path / "small/sparse.json").read_text())
    assert index["version"] == 1
    assert index.keys() == {"format", "version", "files", "tensors", "digest"}


@pytest.mark.parametrize("scales", [torch.ones(3), torch.ones(4, dtype=torch.int32), torch.ones(4, 1)])
def test_scales_that_do_not_fit_are_refused(scales):
    tensor, mask = drawn((4, 8), torch.float32)
    parts = PackedInt8().encode("w", tensor, mask)
    with pytest.raises(ValueError, match="scales"):
        PackedInt8().decode(parts | {"scales": scales}, [4, 8])


@pytest.mark.parametrize("form", ["dense", "2:4"])
def test_other_formats_have_no_int8(form, refused):
    with refused("--values is 'int8'", form, "packed"):
        form_of(form, "int8")
