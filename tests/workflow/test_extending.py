"""docs/extending.md works: its blocks are run in order in a scratch checkout, and the tables hold what was added."""

import json
import re
import subprocess

import pandas as pd
import pytest
from loopback_hub import Repository, running_hub
from scratch import REPOSITORY, checkout_of, environment
from stand_ins import write_model

PAGE = (REPOSITORY / "docs/extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMIT = "5eed" * 10


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The checkout after every block of the page, with a hub on loopback that has `my-org/my-model`."""
    folder = checkout_of(tmp_path_factory.mktemp("extending") / "checkout")
    write_model("qwen2.5-0.5b-mini", folder.parent / "my-model")
    with running_hub() as hub:
        hub.add("model", "my-org/my-model", Repository(folder.parent / "my-model", COMMIT, None, {"main": COMMIT}))
        variables = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(folder.parent / "cache"),
            "PYTHONPATH": f"{folder}/src",
        }
        for block in BLOCKS:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block],
                cwd=folder,
                env=environment() | variables,
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
            )
            assert not done.returncode, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return folder


def test_the_page_has_its_blocks():
    assert len(BLOCKS) == 7


@pytest.fixture(scope="module")
def results(followed):
    return pd.read_parquet(followed / "results/mine/aggregate/from-hub/payload/results.parquet")


def test_the_model_of_a_folder_was_fetched(followed):
    facts = json.loads((followed / "results/mine/models/from-folder/manifest.json").read_text())["facts"]
    assert facts["architecture"] == "LlamaForCausalLM"


def test_the_model_of_the_hub_at_its_pinned_commit_went_through_the_new_method(results):
    assert set(results["revision"]) == {COMMIT}
    assert set(results["method"]) == {"dense", "tempered"}
    tempered = results[results["method"] == "tempered"]
    assert (2 * tempered["nonzero"] == tempered["prunable"]).all()


def test_the_new_task_is_scored_and_the_average_is_that_of_the_six(results, followed):
    six = ["mmlu", "piqa", "arc_easy", "arc_challenge", "winogrande", "openbookqa"]
    for _, cell in results.groupby("method"):
        scores = cell[cell["metric"] == "acc"].set_index("task")["value"]
        assert scores["boolq"] in (0, 50, 100)
        assert scores["average"] == pytest.approx(scores[six].mean())
    assert "| boolq |" in (followed / "results/mine/tables/from-hub.md").read_text()
