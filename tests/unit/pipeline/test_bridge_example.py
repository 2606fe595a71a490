"""The bridge: its model is trained on a little text, its configuration is a study, its figure holds the points."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest
from publish import filled
from scripts import loaded

from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.models.prunable import prunable_linears
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.store.texts import write_texts

SIZES = {"vocabulary": 300, "hidden": 16, "intermediate": 16, "layers": 1, "epochs": 6}
TEXT = [f"Document {n} says that the river runs to the sea, and the sea is wide. " * 8 for n in range(12)]
TWICE = "import train_model as t, sys; [t.main(sys.argv[1:3] + [o] + sys.argv[5:]) for o in sys.argv[3:5]]"


@pytest.fixture(scope="module")
def example(project):
    return project / "examples/bridge"


@pytest.fixture(scope="module")
def trained(example, tmp_path_factory):
    """Two trainings from the same text, in a process of their own: they pin the numerical libraries."""
    folder = tmp_path_factory.mktemp("bridge")
    files = [folder / "training.parquet", folder / "held_out.parquet"]
    for file, texts in zip(files, (TEXT[:10], TEXT[10:]), strict=True):
        write_texts(texts, file)
    outputs = [folder / "first", folder / "second"]
    sizes = [f"--{name}={value}" for name, value in SIZES.items()]
    command = [sys.executable, "-c", TWICE, *map(str, files + outputs), *sizes]
    subprocess.run(command, check=True, cwd=example, capture_output=True)
    return outputs


def test_its_model_loads_and_spells_any_text(trained):
    model, tokenizer = load_model(trained[0], "float32"), load_tokenizer(trained[0])
    assert len(prunable_linears(model)) == 7
    ids = tokenizer("Größe 7: naïve.")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == "Größe 7: naïve."


def test_its_training_repeats_and_keeps_the_lowest_held_out_loss(trained):
    first, second = (folder / "model.safetensors" for folder in trained)
    assert first.read_bytes() == second.read_bytes()
    log = pd.read_csv(trained[0] / "training.csv")
    assert log["held_out_loss"].iloc[-1] < log["held_out_loss"].iloc[0]


def test_its_configuration_has_the_tokens_a_weight_that_it_names(project, example):
    study = read_study(read_config([example / "config.yaml"], project))
    weights, length = 442_368, study.settings.mask_training.length
    for name, method in study.methods.items():
        if name.startswith("leap") and name.endswith(("0.1", "0.4", "1.6")):
            tokens = method.options.steps * method.options.batch_size * length
            assert abs(tokens / weights / float(name[-3:]) - 1) < 0.01
        if name in ("admm-0.4", "admm-1.6"):
            same = study.methods[f"leap-{name[-3:]}"].options
            assert method.training_sequences == same.steps * same.batch_size
    trials = read_study(read_config([example / "config.yaml", example / "settings.yaml"], project))
    rates = [trials.methods[cell.method].options.learning_rate for cell in trials.cells() if "trial" in cell.method]
    assert sorted(rates) == [0.003, 0.01, 0.03]


def verdicts(model, leads, weights):
    """{method: lead} on both texts."""
    facts = {"model": model, "sparsity": 0.6, "reference": "admm", "seeds": 3, "weights": weights}
    return pd.DataFrame(
        [
            facts
            | {"method": method, "text": text, "tokens": tokens, "difference": lead, "stderr": 0.01}
            | {"lower": lead - 0.02, "upper": lead + 0.02, "dof": 4.0, "verdict": "LEAP leads"}
            for method, (tokens, lead) in leads.items()
            for text in ("wikitext2", "c4")
        ]
    )


def test_its_figure_holds_the_points_of_both_models(example, tmp_path):
    ours = {"leap-0.1": (100, 0.3), "leap-1.6": (1600, -0.1), "leap-cold-start-0.1": (100, 0.2)}
    verdicts("bridge", ours, 1000).to_csv(tmp_path / "verdict.csv", index=False)
    real = tmp_path / "real.csv"
    verdicts("smollm2-135m", {"leap-cold-start": (250, 0.05)}, 100_000).to_csv(real, index=False)
    with loaded(example / "lead.py") as lead:
        lead.main(["--tables", str(tmp_path), "--real", str(real)])
        figure = lead.plot(lead.points([tmp_path / "verdict.csv", real]))
        alone = lead.plot(lead.points([tmp_path / "verdict.csv"]))
    drawn = {
        container.get_label(): list(zip(*container[0].get_data(), strict=True))
        for container in figure.axes[0].containers
    }
    assert drawn == {
        "bridge, 60 %, cold start": [(0.1, 0.2)],
        "bridge, 60 %, the paper's schedule": [(0.1, 0.3), (1.6, -0.1)],
        "smollm2-135m, 60 %, cold start": [(0.0025, 0.05)],
    }
    assert len(alone.axes[0].containers) == 2
    assert len(pd.read_csv(tmp_path / "lead.csv")) == 8
    assert (tmp_path / "lead.png").stat().st_size > 10_000


def test_windows_are_of_the_scale_s_length(project, trained, tmp_path):
    tokenizer = load_tokenizer(trained[0])
    write_texts(TEXT, tmp_path / "text.parquet")
    rows = pq.read_table(tmp_path / "text.parquet").column("text").to_pylist()
    with loaded(project / "examples/real/windows.py") as windows:
        found, facts = windows.chosen_windows(tokenizer, rows, False, None, 32, 5)
    assert found.shape == (5, 32)
    assert facts[0] == {"window": 0, "article": 0}
    assert facts == sorted(facts, key=lambda fact: fact["article"])
    assert windows.of_every_article([0, 0, 0, 1, 3, 3, 3, 4], 2) == [0, 1, 3, 4, 5, 7]


def test_its_page_shows_the_files_of_its_run(project, example):
    text = (example / "README.md").read_text(encoding="utf-8")
    assert filled(text, project) == text
