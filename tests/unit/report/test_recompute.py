"""The published errors, computed anew by other code from the answers, on a small grid with all kinds of pairs."""

import pandas as pd
import pytest
from scripts import loaded

from leap_repro.report.answers import answers_table, cell_name
from leap_repro.report.claims import claims_table
from leap_repro.report.collect import OUTCOMES, RESULTS
from leap_repro.report.crossings import crossings_table
from leap_repro.report.differences import differences_table
from leap_repro.report.fact_free import fact_free_table
from leap_repro.report.figures import forest
from leap_repro.report.join import main, parser
from leap_repro.report.tables import main_table
from leap_repro.store.artifacts import writing

MODELS = ("a", "b", "c")
ABILITIES = {"admm": 0.2, "leap": {0.5: 0.6, 0.6: 0.9}, "magnitude": -0.5, "owl": 0.0, "leap-slow": {0.6: 0.5}}
ABILITIES |= {f"{method}-{text}": {0.6: 0.3} for text in ("control", "fact-free") for method in ("leap", "admm")}
ON_TEXT = {
    f"{method}-{text}": {"module": method, "label": "", "variant_of": method, "text": text}
    for text in ("control", "fact-free")
    for method in ("leap", "admm")
}
SIZES = {"prunable": 90, "block_parameters": 100, "parameters": 180, "protocol": "", "sparsity_actual": 0.5}


@pytest.fixture(scope="module")
def recompute(project):
    with loaded(project / "benchmarks/recompute.py") as module:
        yield module


@pytest.fixture(scope="module")
def evidence(drawn):
    """Three models; a rival that ran once, a method without seeds, a line on one model, a curve."""
    once = {"owl": (0,)}
    return drawn(ABILITIES, MODELS, once, {"leap-slow": ("a", "b")}, curve={"leap": 0.9, "admm": 0.1}, luck=0.3)


def written(evidence, folder):
    """The tables and figures' data of a grid, as a published folder has them."""
    results, outcomes, methods = evidence.results.assign(**SIZES), evidence.outcomes, evidence.methods
    tables = {
        "differences": differences_table(outcomes, methods),
        "crossings": crossings_table(results, outcomes, methods, ["owl", "leap-slow"]),
        "annealing": crossings_table(results, outcomes, methods, ["leap-slow"]),
        "claims": claims_table(evidence, ["leap-slow"]),
        "fact-free": fact_free_table(outcomes, methods | ON_TEXT),
        "main": main_table(results, outcomes, methods),
    }
    for name, table in tables.items():
        table.write(folder / name)
    forest.differences(outcomes, methods, {}).to_csv(folder / "forest.csv", index=False)
    answers_table(outcomes).to_parquet(folder / "answers.parquet")
    return folder


@pytest.fixture(scope="module")
def folder(evidence, tmp_path_factory):
    return written(evidence, tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def answers(recompute, folder):
    return recompute.Answers(pd.read_parquet(folder / "answers.parquet"), ["magnitude"])


def test_every_number_is_found_again(recompute, folder, answers, capsys):
    found = recompute.of_folder(folder, answers)
    names = {"annealing", "claims", "crossings", "differences", "fact-free", "forest", "main"}
    assert set(found) == {f"{name}.csv" for name in names}
    assert sum(map(len, found.values())) > 300
    assert recompute.told(found) == 0
    assert capsys.readouterr().out.endswith("0 differ\n")


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("differences.csv", "stderr"),
        ("differences.csv", "p_holm"),
        ("main.csv", "high_over_models"),
        ("claims.csv", "low"),
        ("crossings.csv", "stderr_minus_leap"),
        ("forest.csv", "dof"),
        ("fact-free.csv", "stderr control − fact-free"),
    ],
)
def test_a_number_that_is_a_little_off_is_told(recompute, folder, answers, tmp_path, capsys, file, column):
    table = pd.read_csv(folder / file)
    place = table[column].last_valid_index()
    table.loc[place, column] *= 1 + 1e-6
    table.to_csv(tmp_path / file, index=False)
    assert recompute.told(recompute.of_folder(tmp_path, answers)) == 1
    assert f"{column} is" in capsys.readouterr().out


def test_a_folder_without_answers_or_with_a_cell_that_was_asked_less_is_refused(recompute, tmp_path, refused, folder):
    with refused("answers.parquet", "publish a run"):
        recompute.main(recompute.parser().parse_args([str(tmp_path)]))
    table = pd.read_parquet(folder / "answers.parquet")
    table.loc[3, "a/leap/0.5/0"] = pd.NA
    with refused("a/leap/0.5/0", "every question"):
        recompute.Answers(table, [])


def test_answers_are_a_column_of_booleans_a_cell(evidence, folder):
    table = pd.read_parquet(folder / "answers.parquet")
    assert len(table) == 150
    cells = evidence.outcomes.groupby(["model", "method", "sparsity_target", "seed"])
    assert len(table.columns) == 3 + cells.ngroups
    for cell, own in cells:
        mine = own.set_index(["task", "leaf", "index"])["correct"]
        assert (table.set_index(["task", "leaf", "index"])[cell_name(*cell)].loc[mine.index] == mine).all()


def test_the_join_writes_both_tables_and_their_digests(evidence, tmp_path):
    for model in MODELS:
        with writing(tmp_path / "aggregate" / model, {}) as (payload, _):
            for name, frame in ((RESULTS, evidence.results), (OUTCOMES, evidence.outcomes)):
                frame[frame["model"] == model].to_parquet(payload / name, index=False)
    given = ["--root", tmp_path, "--models", *MODELS, "--output", tmp_path / "results.parquet"]
    main(parser().parse_args([str(argument) for argument in [*given, "--answers", tmp_path / "answers.parquet"]]))
    expected = answers_table(evidence.outcomes)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "answers.parquet"), expected, check_like=True)
    assert all((tmp_path / f"{name}.sha256").is_file() for name in ("results", "answers"))
