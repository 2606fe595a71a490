"""The paper's own grid, fetched from a hub on loopback: the config's ids, commits and files, under tiny numbers.

By default a part of it runs: every fetch, and two methods of one model. The whole, five models x all methods x two
sparsities, takes about 40 minutes on two cores:

    pytest -m paper_grid tests/workflow/test_paper_grid.py
"""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from loopback_hub import running_hub
from paper_grid import client_variables, pin, run, write_checkout
from stand_ins import TOKEN, hub_scale, paper_scale, serve_paper, wikitext_rows

MODEL = "qwen2.5-0.5b"
SCALE = paper_scale()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with running_hub() as hub:
        serve_paper(hub, tmp_path_factory.mktemp("hub"))
        yield hub


@pytest.fixture(scope="module")
def variables(hub, tmp_path_factory):
    return client_variables(hub, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def fetched(hub, variables, tmp_path_factory):
    """A checkout where all was pinned and fetched and one model went through two methods: (folder, output)."""
    folder = write_checkout(
        tmp_path_factory.mktemp("paper") / "checkout", methods=["dense", "magnitude", "leap"], sparsities=[0.5]
    )
    pinned = pin(folder, variables)
    assert not pinned.returncode, pinned.stderr
    wanted = [f"results/paper/models/{name}/manifest.json" for name in SCALE["models"]]
    wanted += [f"results/paper/data/{role}/manifest.json" for role in SCALE["data"]]
    return folder, pinned.stdout + pinned.stderr + run(folder, variables, *wanted, f"results/paper/tables/{MODEL}.md")


def facts(folder, what):
    return json.loads((folder / f"results/paper/{what}/manifest.json").read_text())["facts"]


def test_the_lock_holds_the_commit_and_the_files_of_every_source(fetched):
    lock = json.loads((fetched[0] / "hub.lock.json").read_text())
    sources = [("models", spec) for spec in SCALE["models"].values()]
    sources += [("datasets", spec) for spec in [*SCALE["data"]["tasks"]["sets"].values(), SCALE["data"]["calibration"]]]
    for kind, spec in sources:
        entry = lock[f"{kind}/{spec['id']}"]
        assert entry["revision"] == spec["revision"]
        assert all(len(file["sha256"]) == 64 for file in entry["files"].values())
    assert len(lock["datasets/DKYoon/SlimPajama-6B"]["files"]) == 24
    assert len(lock["datasets/allenai/ai2_arc"]["files"]) == 6
    assert not [name for entry in lock.values() for name in entry["files"] if name.endswith((".pth", ".bin", ".md"))]


@pytest.mark.parametrize("model", SCALE["models"])
def test_every_model_comes_at_its_commit_without_pickles(fetched, model):
    assert facts(fetched[0], f"models/{model}")["revision"] == SCALE["models"][model]["revision"]
    names = {path.name for path in (fetched[0] / f"results/paper/models/{model}/payload").iterdir()}
    assert {"config.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".pth", ".bin", ".md"))]


def test_all_rows_of_wikitext_stay_in_their_order(fetched):
    texts = pq.read_table(fetched[0] / "results/paper/data/perplexity/payload/text-00000.parquet").column("text")
    assert texts.to_pylist() == wikitext_rows()


def test_mask_training_reads_the_slice_that_the_config_names(fetched):
    assert facts(fetched[0], "data/mask_training")["documents"] == 24 * 10


def test_the_six_sets_have_the_splits_that_lm_eval_names(fetched):
    rows = facts(fetched[0], "data/tasks")["rows"]
    assert {"piqa/train", "piqa/validation", "winogrande/train", "winogrande/validation", "arc_easy/test"} <= set(rows)
    subjects = {name.split("/")[0] for name in rows if name.startswith("mmlu_")}
    assert len(subjects) == 6
    assert all({f"{subject}/dev", f"{subject}/test"} <= set(rows) for subject in subjects)


def test_a_fetched_model_goes_through_to_its_table(fetched):
    table = pd.read_csv(fetched[0] / f"results/paper/tables/{MODEL}.csv")
    assert set(table["method"]) == {"dense", "magnitude", "leap"}
    assert table["average"].between(0, 100).all()


def test_the_open_models_come_without_a_token_and_one_goes_through(hub, variables, tmp_path):
    folder = write_checkout(tmp_path / "checkout", "open", methods=["dense", "wanda"], sparsities=[0.5])
    models = hub_scale("open")["models"]
    wanted = [f"results/open/models/{name}/manifest.json" for name in models]
    run(folder, variables | {"HF_TOKEN": "", "HF_HOME": str(tmp_path)}, *wanted, "results/open/tables/olmo2-1b.csv")
    for name, spec in models.items():
        found = json.loads((folder / f"results/open/models/{name}/manifest.json").read_text())["facts"]
        assert found["revision"] == spec["revision"]
    assert set(pd.read_csv(folder / "results/open/tables/olmo2-1b.csv")["method"]) == {"dense", "wanda"}


def assert_secret(folder, output):
    assert TOKEN not in output
    for root in ("results", "logs", ".snakemake/log", ".snakemake/metadata"):
        for path in (folder / root).rglob("*"):
            assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    assert TOKEN not in (folder / "hub.lock.json").read_text()


def test_the_token_is_nowhere(fetched):
    assert_secret(*fetched)


def test_a_second_run_needs_no_network_and_no_token(fetched, variables):
    offline = variables | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1", "HF_TOKEN": ""}
    (fetched[0] / f"results/paper/models/{MODEL}/manifest.json").unlink()
    run(fetched[0], offline, f"results/paper/models/{MODEL}/manifest.json")
    assert facts(fetched[0], f"models/{MODEL}")["revision"] == SCALE["models"][MODEL]["revision"]


@pytest.mark.paper_grid
def test_the_whole_grid(hub, variables, tmp_path):
    folder = write_checkout(tmp_path / "checkout")
    pinned = pin(folder, variables)
    assert not pinned.returncode, pinned.stderr
    output = run(folder, variables, timeout=6 * 3600)
    results = pd.read_parquet(folder / "results/paper/results.parquet")
    assert set(results["model"]) == set(SCALE["models"])
    assert set(results["method"]) == set(SCALE["methods"])
    for model, spec in SCALE["models"].items():
        assert set(results.loc[results["model"] == model, "revision"]) == {spec["revision"]}
        assert len(pd.read_csv(folder / f"results/paper/tables/{model}.csv"))
    assert (folder / "results/paper/tables/main.md").is_file()
    assert_secret(folder, output)
