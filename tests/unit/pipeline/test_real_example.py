"""The rule of examples/real, against brute force and simulation, and the sets that its text is parted into."""

from __future__ import annotations

import math
import sys
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.report.pages import filled


@pytest.fixture(autouse=True)
def scripts(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project / "examples/real"))
    yield
    for name in ("verdict", "windows", "split_text", "tables", "figure", "trials"):
        sys.modules.pop(name, None)


def test_the_parts_of_the_variance_are_the_rule_s():
    rng = np.random.default_rng(0)
    d, articles = rng.normal(size=(3, 12)), np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5])
    found = import_module("verdict").difference(d, articles)
    mean, count = d.mean(), 6
    text = 0.0
    for article in range(count):
        inside = [w for w in range(12) if articles[w] == article]
        text += np.mean([sum(d[s, w] - mean for w in inside) for s in range(3)]) ** 2
    text *= count / (count - 1) / 12**2
    seeds = np.var([row.mean() for row in d], ddof=1) / 3
    assert math.isclose(found.value, mean)
    assert math.isclose(found.stderr, math.sqrt(text + seeds))
    assert math.isclose(found.dof, (text + seeds) ** 2 / (text**2 / (count - 1) + seeds**2 / 2))


def test_one_seed_has_no_part_for_seeds():
    d, articles = np.array([[1.0, 3.0, 2.0]]), np.array([0, 1, 2])
    found = import_module("verdict").difference(d, articles)
    assert math.isclose(found.stderr, np.std([1, 3, 2], ddof=1) / math.sqrt(3))
    assert found.dof == 2


def test_its_intervals_hold_the_truth():
    """Articles of several windows share a part, seeds share another: nearly 95 % of the intervals hold 0."""
    difference, rng = import_module("verdict").difference, np.random.default_rng(1)
    articles = np.repeat(np.arange(20), 2)
    held = 0
    for _ in range(600):
        shared = rng.normal(0, 0.3, 20)[articles] + rng.normal(0, 0.2, 40)
        d = shared + rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.1, (3, 40))
        lower, upper = difference(d, articles).interval
        held += lower <= 0 <= upper
    assert 0.91 <= held / 600 <= 0.99


def frame(losses):
    """Window losses of one model at 60 %; `losses`: {method: {text: mean}}."""
    rng = np.random.default_rng(2)
    noise = {text: rng.normal(0, 0.5, 10) for text in ("wikitext2", "c4", "held_out")}
    rows = [
        {"model": "m", "method": method, "sparsity": 0.0 if method == "dense" else 0.6, "seed": seed, "text": text}
        | {"window": w, "article": w // 2, "loss": mean + noise[text][w] + rng.normal(0, 0.01)}
        for method, means in losses.items()
        for text, mean in means.items()
        for seed in range(3)
        for w in range(10)
    ]
    return pd.DataFrame(rows)


def everywhere(loss, c4=None):
    return {"wikitext2": loss, "c4": loss if c4 is None else c4, "held_out": loss}


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (everywhere(3.8), "LEAP leads"),
        (everywhere(4.2), "LEAP is behind"),
        (everywhere(3.8, c4=4.2), "undecided"),
    ],
)
def test_the_verdict_wants_both_texts(ours, words):
    verdict = import_module("verdict")
    windows = frame({"dense": everywhere(3.0), "admm": everywhere(4.0), "leap": ours})
    found = verdict.verdicts(windows, verdict.perplexities(windows).assign(tokens=1000))
    assert set(found["verdict"]) == {words}
    assert set(found["reference"]) == {"admm"}


def test_the_better_admm_on_the_settings_text_is_the_reference():
    verdict = import_module("verdict")
    better = {"wikitext2": 5.0, "c4": 5.0, "held_out": 3.9}
    windows = frame({"dense": everywhere(3.0), "admm": everywhere(4.0), "admm-250k": better, "leap": everywhere(4.5)})
    found = verdict.verdicts(windows, verdict.perplexities(windows).assign(tokens=1000))
    assert set(found["reference"]) == {"admm-250k"}
    assert set(found["verdict"]) == {"LEAP leads"}


def test_one_seed_decides_nothing():
    verdict = import_module("verdict")
    windows = frame({"dense": everywhere(3.0), "admm": everywhere(4.0), "leap": everywhere(3.0)})
    windows = windows[windows["seed"] == 0]
    found = verdict.verdicts(windows, verdict.perplexities(windows).assign(tokens=1000))
    assert set(found["verdict"]) == {"not decided by one seed"}


def test_an_admm_of_fewer_tokens_decides_nothing():
    verdict = import_module("verdict")
    windows = frame({"dense": everywhere(3.0), "admm": everywhere(4.0), "leap": everywhere(3.0)})
    found = verdict.perplexities(windows)
    tokens = found["method"].map({"dense": 0, "admm": 100, "leap": 1000})
    assert set(verdict.verdicts(windows, found.assign(tokens=tokens))["verdict"]) == {
        "open: no ADMM on LEAP's tokens yet"
    }


def test_one_seed_in_common_decides_nothing():
    verdict = import_module("verdict")
    windows = frame({"dense": everywhere(3.0), "admm": everywhere(4.0), "leap": everywhere(3.0)})
    windows = windows[(windows["method"] != "admm") | (windows["seed"] == 1)]
    found = verdict.verdicts(windows, verdict.perplexities(windows).assign(tokens=1000))
    assert set(found["verdict"]) == {"not decided by one seed"}
    assert set(found["seeds"]) == {1}


def test_windows_begin_in_the_article_that_holds_their_first_token():
    windows = import_module("windows")
    rows = ["", " = One = \n", "text", " = = Part = = \n", "more", " = Two = \n", "end"]
    joined = windows.SEPARATOR.join(rows)
    starts = windows.article_starts(rows, by_title=True)
    assert [joined[start:].split(" = ")[1] for start in starts] == ["One", "Two"]
    assert len(windows.article_starts(rows, by_title=False)) == len(rows)
    assert windows.spread(148, 40) == [w * 148 // 40 for w in range(40)]
    assert windows.spread(5, 40) == [0, 1, 2, 3, 4]
    assert windows.of_every_article([0, 0, 1, 3, 3, 3, 4]) == [0, 2, 3, 6]


def test_no_document_is_in_two_sets(tmp_path):
    split = import_module("split_text")
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(f'{{"text": "document {n % 300}"}}' for n in range(400)), encoding="utf-8")
    texts = list(split.documents([path, path]))
    assert len(texts) == 300
    shares = pd.Series([split.part(text) for text in texts]).value_counts(normalize=True)
    assert set(shares.index) == {"scoring", "calibration", "mask_training"}
    assert abs(shares["mask_training"] - 11 / 20) < 0.1


def test_the_configurations_are_studies(project):
    files = [project / "examples/real/config.yaml", project / "examples/real/settings.yaml"]
    study = read_study(read_config(files[:1], project))
    tokens = study.settings.mask_training.length
    spent = {
        name: study.methods[name].options.steps * study.methods[name].options.batch_size * tokens
        for name in ("leap", "leap-500k", "leap-cold-start-1m")
    }
    assert spent == {"leap": 249_856, "leap-500k": 499_712, "leap-cold-start-1m": 999_424}
    cold, paper = (study.methods[name].options for name in ("leap-cold-start", "leap"))
    assert (cold.tau_start, cold.kappa_start, paper.tau_start, paper.kappa_start) == (0.5, 100.0, 4.0, 25.0)
    trials = read_study(read_config(files, project))
    at = {cell.method: trials.methods[cell.method].options for cell in trials.cells() if "trial" in cell.method}
    assert {options.steps * options.batch_size * tokens for options in at.values()} == {102_400}


def scored(project):
    """The two tables of three methods and a dense model, by the example's own configuration."""
    verdict = import_module("verdict")
    losses = {"dense": 3.0, "admm": 4.0, "admm-250k": 4.1, "leap": 3.9, "leap-cold-start-500k": 3.8}
    windows = frame({method: everywhere(loss) for method, loss in losses.items()})
    study = read_study(read_config([project / "examples/real/config.yaml"], project))
    found = verdict.with_tokens(verdict.perplexities(windows), study)
    return found, verdict.with_tokens(verdict.verdicts(windows, found), study)


def test_the_tables_name_tokens_and_say_the_verdict(project):
    tables = import_module("tables")
    found, decided = scored(project)
    tokens = found.drop_duplicates("method").set_index("method")["tokens"].to_dict()
    of_admm = {"admm": 32_768, "admm-250k": 249_856}
    assert tokens == of_admm | {"dense": 0, "leap": 249_856, "leap-cold-start-500k": 499_712}
    text = tables.verdicts(decided).markdown()
    assert text.count("LEAP leads") == text.count("open") == 1
    assert "| 499,712 | 3 |" in text
    shown = tables.perplexities(found).shown.set_index("Method")
    assert float(shown.loc["admm", "PPL C4"]) == pytest.approx(math.exp(4.0), rel=0.2)
    assert shown.loc["dense", "ln(PPL / dense), C4"] == "0.000"


def test_the_figure_joins_the_budgets_of_a_method(project, tmp_path, monkeypatch):
    figure = import_module("figure")
    found, _ = scored(project)
    found.to_csv(tmp_path / "perplexities.csv", index=False)
    rows = figure.drawn(found, 0.6)
    assert set(rows["family"]) == {"admm", "leap", "leap-cold-start"}
    given = ["figure.py", "--perplexities", str(tmp_path / "perplexities.csv"), "--output", str(tmp_path / "drawn")]
    monkeypatch.setattr(sys, "argv", given)
    figure.main()
    assert (tmp_path / "drawn.png").stat().st_size > 10_000
    assert set(pd.read_csv(tmp_path / "drawn.csv")["text"]) == {"wikitext2", "c4"}


def test_the_page_shows_the_published_tables(project):
    page = (project / "examples/real/README.md").read_text(encoding="utf-8")
    assert filled(page, project) == page
    assert "<!-- examples/real/published/verdict.md -->" in page
