"""Where a clone lies, what it reads from the machine, and what a grid may lack, all through Snakemake itself."""

import json
import shutil
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file
from scratch import REPOSITORY, checkout_of, command, edit, environment, planned, snakemake, write_inputs

ODD = "it's my {odd} $HOME [x] 100% ü\"; true & #: a"
MODEL, TASKS = "results/tiny/models/mini/manifest.json", "results/tiny/data/tasks/manifest.json"


def test_a_clone_may_lie_anywhere_and_runs_its_own_code(tmp_path):
    """Marks of the shell, of YAML, of format strings, and of patterns; and code that no installed package has."""
    folder = checkout_of(tmp_path / ODD / "my project", REPOSITORY / "tests/config/tiny.yaml")
    write_inputs(folder)
    edit(
        folder,
        "src/leap_repro/harden/cell.py",
        '"cell": cell,',
        '"cell": cell, "own": 1,',
    )
    cell = "mini/dense/0/0"
    snakemake(folder, f"results/tiny/evaluate/{cell}/manifest.json", variables={"PYTHONPATH": ""})
    assert json.loads((folder / f"results/tiny/harden/{cell}/manifest.json").read_text())["facts"]["own"] == 1
    assert (folder / f"results/tiny/evaluate/{cell}/payload/metrics.parquet").is_file()


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """A checkout whose model lies beside it and whose text in an abbreviated home; model, text and tasks fetched."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(REPOSITORY / "src/leap_repro/miniature/released/llama3.2-1b-mini", home / "model")
    folder = checkout_of(home / "checkout", REPOSITORY / "tests/config/tiny.yaml")
    write_inputs(folder)
    edit(folder, "config.yaml", "{source: bundled, name: llama3.2-1b-mini, ", "{source: path, path: ../model, ")
    edit(folder, "config.yaml", "{source: path, path: data/text.txt}", "{source: path, path: ~/text.txt}")
    shutil.copyfile(folder / "data/text.txt", home / "text.txt")
    snakemake(folder, MODEL, TASKS, "results/tiny/data/calibration/manifest.json", variables={"HOME": str(home)})
    return home


@pytest.fixture
def home(fetched, tmp_path, monkeypatch):
    """A copy of it, for one test to change."""
    shutil.copytree(fetched, tmp_path / "home", copy_function=shutil.copy2)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_nothing_is_to_be_done_where_nothing_changed(home):
    assert planned(home / "checkout", MODEL, TASKS) == {}


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"])
def test_a_changed_file_of_a_local_model_fetches_it_again(home, name):
    path = home / "model" / name
    path.write_text(json.dumps(json.loads(path.read_text())) + "\n\n")
    assert planned(home / "checkout", MODEL) == {"fetch_model": 1}


def test_a_changed_task_set_is_fetched_again(home):
    path = home / "checkout/data/tasks/piqa/validation.parquet"
    pq.write_table(pa.Table.from_pylist(pq.read_table(path).to_pylist()[:3]), path)
    assert planned(home / "checkout", TASKS)["fetch_data"] == 1


def refused(folder):
    """The words of a dry run that must fail."""
    done = subprocess.run(
        command("-n"), cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert not list((folder / "results/tiny").rglob("prune"))
    return done.stdout + done.stderr


def test_a_dry_run_refuses_trained_weights_under_other_names(home):
    path = home / "model/model.safetensors"
    save_file({f"_orig_mod.{name}": tensor for name, tensor in load_file(path).items()}, path)
    words = refused(home / "checkout")
    assert "config: scales.tiny.models.mini" in words
    assert "the files lack" in words
    assert "Traceback" not in words


def test_a_dry_run_refuses_questions_without_keys(home):
    path = home / "checkout/data/tasks/piqa/validation.parquet"
    pq.write_table(pa.Table.from_pylist([row | {"label": -1} for row in pq.read_table(path).to_pylist()]), path)
    assert "piqa: row 0 of validation.parquet has label -1" in refused(home / "checkout")


def test_an_adapter_beside_a_model_is_noted_and_left(home):
    (home / "model/adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    (home / "model/adapter_model.safetensors").write_bytes(b"x")
    assert "adapter_config.json) is not applied" in snakemake(home / "checkout", "-n")


@pytest.mark.parametrize("methods", ["[dense, wanda]", "[wanda]", "[dense]"])
def test_a_grid_without_leap_has_all_that_it_can_have(checkout, methods):
    edit(checkout, "config.yaml", "methods: [dense, wanda, admm, leap]", f"methods: {methods}")
    edit(checkout, "config.yaml", "extended: [admm-as-released]", "extended: []")
    for path in (checkout / "results/tiny/figures").iterdir():
        path.unlink()
    snakemake(checkout)
    figures = {path.stem for path in (checkout / "results/tiny/figures").iterdir()}
    assert figures == ({"accuracy"} if "wanda" in methods else set())
    assert "Δ ADMM" not in (checkout / "results/tiny/tables/main.md").read_text()
    assert planned(checkout) == {}
