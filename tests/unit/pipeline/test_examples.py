"""The example's configuration is a study, its data are the paper's, and its page shows what a run wrote."""

from pathlib import Path

import pytest
from publish import filled

from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config

TOP = Path(__file__).resolve().parents[3]
EXAMPLE = TOP / "examples/smollm2"
CONFIG = read_config(project=TOP)


def example(data):
    return read_config([EXAMPLE / "config.yaml", EXAMPLE / data], TOP)


@pytest.mark.parametrize("data", ["hub.yaml", "local.yaml"])
def test_it_is_a_study_of_seven_methods_and_three_budgets(data):
    study = read_study(example(data))
    modules = [study.methods[cell.method].module for cell in study.cells()]
    assert sorted(modules) == sorted(["dense", "wanda", "sparsegpt", "thanos", "admm", "optima", *["leap"] * 3])
    tokens = [study.methods[name].options.steps * 8 * 128 for name in ("leap", "leap-half", "leap-quarter")]
    assert tokens == [102_400, 51_200, 25_600]
    assert study.settings.mask_training.sequences * study.settings.mask_training.length == tokens[0]


def test_the_hub_s_data_are_the_paper_s():
    ours, paper = (config["data"] for config in (example("hub.yaml")["scales"]["smollm2"], CONFIG["scales"]["paper"]))
    assert {role: ours[role] for role in ("calibration", "perplexity", "tasks")} == {
        role: paper[role] for role in ("calibration", "perplexity", "tasks")
    }
    assert ours["mask_training"] | {"files": None} == ours["calibration"] | {"files": None}
    assert ours["mask_training"]["files"] != ours["calibration"]["files"]


def test_its_page_shows_the_files_of_its_run():
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    assert filled(text, TOP) == text
