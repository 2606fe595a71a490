"""An export is the base checkpoint with other numbers in its pruned matrices, and nothing else is changed."""

import json

import pytest
import torch
from families import tiny
from safetensors.torch import load_file, save_file

from leap_repro.export.lineage import Lineage
from leap_repro.export.write import export_cell
from leap_repro.models.cell import apply_cell
from leap_repro.models.load import load_model
from leap_repro.models.prunable import prunable_linears
from leap_repro.pipeline.stages.harden import main as harden
from leap_repro.pipeline.stages.harden import parser
from leap_repro.sparsity.pruned import PrunedFolder
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.hashes import sha256_of

COMPANIONS = {
    "preprocessor_config.json": '{"size":  224}',
    "processor_config.json": '{"processor_class": "X"}',
    "chat_template.jinja": "{{ messages }}",
    "generation_config.json": '{"bos_token_id": 1}',
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny bfloat16 Llama in two shards, one norm in float32, with the clutter of real ones."""
    folder = tmp_path_factory.mktemp("base")
    tiny("llama").to(torch.bfloat16).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{index % 2 + 1:05d}-of-00002.safetensors" for index, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        part = {name: tensor for name, tensor in tensors.items() if places[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    config = json.loads((folder / "config.json").read_text())
    more = {"use_cache": True, "auto_map": {"AutoModelForCausalLM": "modeling_x.X"}, "note": "ü"}
    (folder / "config.json").write_text(json.dumps(config | more))
    for name, text in COMPANIONS.items():
        (folder / name).write_text(text)
    return folder


def cell_of(base, folder, moved, family="llama"):
    """A hardened cell that keeps every other weight, with new values for them in matrices whose name has `moved` in it
    (True: in all)."""
    tensors = {}
    for linear in prunable_linears(tiny(family)):
        keep = torch.arange(linear.weight.numel()).view_as(linear.weight) % 2 == 0
        tensors[f"{linear.name}.keep"] = keep
        if moved is True or (moved and moved in linear.name):
            tensors[f"{linear.name}.values"] = torch.full(keep.shape, 0.1) * keep
    with writing(folder / "pruned", {}) as (payload, facts):
        store = PrunedFolder(payload)
        store.write("pruned", tensors)
        facts |= {
            "tensors": store.finish(),
            "sparsity": "0.5",
            "seed": 0,
            "tokens_sha256": None,
            "pattern": "unstructured",
            "budget_scope": "tensor",
        }
    arguments = ["--pruned", folder / "pruned", "--cell", "a/cell", "--output", folder / "cell"]
    harden(parser().parse_args([str(argument) for argument in arguments]))
    return Artifact.read(folder / "cell")


def export_of(base, cell, output, **settings):
    """The export of a cell of the model in `base`, which is no artifact of a run."""
    export_cell(base, Lineage(Artifact(base, {}, {}), cell), output, **settings)


def all_tensors(folder):
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


@pytest.mark.parametrize("moved", [False, True], ids=["masked", "moved"])
def test_only_the_pruned_matrices_differ(base, tmp_path, moved):
    export_of(base, cell_of(base, tmp_path, moved), tmp_path / "out")
    before, after = all_tensors(base), all_tensors(tmp_path / "out")
    pruned = {linear.name for linear in prunable_linears(tiny("llama"))}
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype, name
        if name not in pruned:
            assert torch.equal(tensor, before[name]), name
            continue
        keep = torch.arange(tensor.numel()).view_as(tensor) % 2 == 0
        expected = torch.full_like(tensor, 0.1) if moved else before[name]
        assert torch.equal(tensor, expected * keep), name


def test_of_a_mixture_some_experts_may_be_moved(tmp_path):
    """As an import of a checkpoint whose pruner never saw a token for the others."""
    tiny("mixtral").save_pretrained(tmp_path / "base")
    cell = cell_of(None, tmp_path, "experts.0.", "mixtral")
    export_of(tmp_path / "base", cell, tmp_path / "out")
    evaluated, exported = load_model(tmp_path / "base"), load_model(tmp_path / "out")
    apply_cell(evaluated, cell)
    for name, tensor in exported.state_dict().items():
        assert torch.equal(tensor, evaluated.state_dict()[name]), name


def test_files_are_those_of_the_base_and_configurations_stay(base, tmp_path):
    export_of(base, cell_of(base, tmp_path, False), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        *(path.name for path in base.iterdir()),
    }
    for name, text in COMPANIONS.items():
        assert (tmp_path / "out" / name).read_text() == text
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (base, tmp_path / "out"))
    assert after == {key: value for key, value in before.items() if key != "auto_map"}
    sizes = [sum(path.stat().st_size for path in folder.glob("*.safetensors")) for folder in (base, tmp_path / "out")]
    assert sizes[0] == sizes[1]


def test_another_type_is_there_on_request(base, tmp_path):
    export_of(base, cell_of(base, tmp_path, False), tmp_path / "out", dtype="float32")
    assert {tensor.dtype for tensor in all_tensors(tmp_path / "out").values()} == {torch.float32}
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float32"


def test_a_folder_that_holds_something_is_refused(base, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.safetensors").touch()
    cell = cell_of(base, tmp_path, False)
    with refused("--output", "not empty"):
        export_of(base, cell, tmp_path / "out")


def test_a_cell_of_another_model_leaves_nothing(base, tmp_path, refused):
    cell = cell_of(base, tmp_path, False)
    tiny("mixtral").save_pretrained(tmp_path / "other")
    with refused("a/cell", "another model"):
        export_of(tmp_path / "other", cell, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_values_that_the_type_cannot_hold_are_refused(base, tmp_path, refused):
    cell = cell_of(base, tmp_path, True)
    small = tmp_path / "half"
    tiny("llama").to(torch.float16).save_pretrained(small)
    path = next((tmp_path / "cell/payload").glob("values-00000*"))
    huge = {name: torch.full_like(tensor, 1e6) for name, tensor in load_file(path).items()}
    save_file(huge, path)
    cell.files[path.name]["sha256"] = sha256_of(path)
    with refused("not finite in torch.float16"):
        export_of(small, cell, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_a_tensor_that_no_mask_touches_must_be_finite_too(base, tmp_path, refused, dtype):
    """As it is written: 70,000 is no float16."""
    cell, folder = cell_of(base, tmp_path, False), tmp_path / "loud"
    model = tiny("llama")
    model.model.norm.weight.data[0] = 7e4 if dtype else float("nan")
    model.save_pretrained(folder)
    with refused("model.norm.weight", "not finite", "torch.float16" if dtype else "torch.float32"):
        export_of(folder, cell, tmp_path / "out", dtype=dtype)
    assert not (tmp_path / "out").exists()
