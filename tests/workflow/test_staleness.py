"""What runs again after a change: only what the change can touch. Counted in dry runs of a finished scratch copy."""

import re
import shlex
import shutil

import pytest
from scratch import REPOSITORY, edit, plan, planned, snakemake

PACKAGE = "src/leap_repro"
PAGE = (REPOSITORY / "docs/staleness.md").read_text(encoding="utf-8")
CELLS = ("prune", "harden", "evaluate")
TABLES = {"join_results": 1, "build_model_table": 1, "build_study_table": 2}
AFTER_EVALUATION = {"collect_model": 1, **TABLES, "plot_figure": 3, "build_front_page": 1, "all": 1}
HARMLESS = ("layer.weight.abs() *", "1.0 * layer.weight.abs() *")


def cells(count):
    """The jobs of `count` cells that are made anew, and of what sums them up."""
    return dict.fromkeys(CELLS, count) | AFTER_EVALUATION | {"build_time_table": 1}


def test_a_finished_grid_has_nothing_to_do(checkout):
    assert planned(checkout) == {}


def test_comments_docstrings_formatting_readme_and_tests_rerun_nothing(checkout):
    edit(checkout, f"{PACKAGE}/prune/methods/wanda.py", "def prune_layer", "# a remark\n\n\ndef prune_layer")
    edit(checkout, f"{PACKAGE}/prune/methods/wanda.py", "Each output row, or", "Every output row, or")
    edit(checkout, f"{PACKAGE}/evaluate/perplexity.py", "SEPARATOR = ", "SEPARATOR  =  ")
    edit(checkout, "workflow/rules/common.smk", "LOGS = ", "# a remark\nLOGS = ")
    edit(checkout, "config.yaml", "steps: 4,", "steps:   4,")
    (checkout / "README.md").write_text("# Another text\n")
    (checkout / "tests").mkdir()
    (checkout / "tests/test_new.py").write_text("def test_it():\n    assert True\n")
    assert planned(checkout) == {}


def test_logic_of_wanda_reruns_its_cells_and_those_that_start_from_it_and_says_so(checkout):
    edit(checkout, f"{PACKAGE}/prune/methods/wanda.py", *HARMLESS)
    jobs, text = plan(checkout)
    assert jobs == cells(2)
    assert "Pruning mini with wanda to 0.5, seed 0: prune.methods.wanda changed\n" in text
    assert re.search(
        r"Pruning mini with leap .*\nReason: Input files updated by another job: .*harden/mini/wanda", text
    )


def test_the_block_walker_reruns_the_layer_wise_methods_and_what_starts_from_them(checkout):
    edit(checkout, f"{PACKAGE}/models/walker.py", "from __future__ import annotations", "LIMIT = 3")
    jobs, text = plan(checkout)
    assert jobs == cells(4)
    stale = re.findall(r"Pruning mini with (\w+) to [\d.]+, seed 0: models.walker changed\n", text)
    assert sorted(stale) == ["admm", "dense", "wanda"]


def test_the_evaluator_reruns_evaluations_and_later(checkout):
    edit(checkout, f"{PACKAGE}/evaluate/perplexity.py", "math.exp(losses.mean())", "math.exp(1.0 * losses.mean())")
    assert planned(checkout) == {"evaluate": 4, "build_time_table": 1, **AFTER_EVALUATION}


def test_a_figure_module_reruns_that_figure(checkout):
    edit(checkout, f"{PACKAGE}/report/figures/density.py", "2.6)", "2.7)")
    assert planned(checkout) == {"plot_figure": 1, "all": 1}


def test_the_published_record_reruns_the_table_that_shows_it(checkout):
    edit(checkout, f"{PACKAGE}/report/data/published_results.csv", "48.48", "48.49")
    forest = {"plot_figure": 1, "build_front_page": 1}
    assert planned(checkout) == {"build_study_table": 1, **forest, "all": 1}


def test_lambda_1_reruns_leap_only_and_is_named(checkout):
    edit(checkout, "config.yaml", "micro_batch_size: 2}", "micro_batch_size: 2, density_weight: 8.0}")
    jobs, text = plan(checkout)
    assert jobs == cells(1)
    assert "Pruning mini with leap to 0.5, seed 0: density_weight unset -> 8.0\n" in text


@pytest.mark.parametrize(
    ("old", "new", "jobs"),
    [
        ("sparsities: [0.5]", "sparsities: [0.5, 0.6]", cells(3)),
        ("    seeds: [0]", "    seeds: [0, 1]", cells(3) | {"build_tokens": 2}),  # no seed makes another of Dense
        ("methods: [dense,", "methods: [dense, admm-as-released,", cells(1)),
        (
            "    data:\n",
            "      second: {source: bundled, name: qwen2.5-0.5b-mini}\n    data:\n",
            cells(4) | {"fetch_model": 1, "build_tokens": 2, "build_model_table": 1},
        ),
    ],
    ids=["sparsity", "seed", "method", "model"],
)
def test_a_larger_grid_runs_only_its_new_cells_and_what_sums_up(checkout, old, new, jobs):
    edit(checkout, "config.yaml", "    extended: [admm-as-released]\n", "")
    edit(checkout, "config.yaml", old, new)
    assert planned(checkout) == jobs


def test_a_dropped_method_reruns_only_what_sums_up(checkout):
    edit(checkout, "config.yaml", "methods: [dense, wanda, admm, leap]", "methods: [dense, admm, leap]")
    assert planned(checkout) == {"build_time_table": 1, **AFTER_EVALUATION}


def test_another_name_in_the_tables_reruns_the_tables_only(checkout):
    edit(checkout, "config.yaml", "stands_for: LLaMA-3.2 1B", "stands_for: another")
    edit(checkout, "config.yaml", "label: Wanda", "label: WANDA")
    assert set(planned(checkout)) <= {
        "build_model_table",
        "build_study_table",
        "plot_figure",
        "build_front_page",
        "all",
    }


@pytest.mark.parametrize(
    ("package", "jobs"),
    [
        ("tqdm", {}),
        ("matplotlib", {"plot_figure": 3, "build_front_page": 1, "all": 1}),
        ("lm_eval", {"evaluate": 4, "build_time_table": 1, **AFTER_EVALUATION}),
    ],
)
def test_a_package_pin_reruns_what_depends_on_it_and_is_named(checkout, package, jobs):
    pins = checkout / "envs/requirements.txt"
    pins.write_text(re.sub(rf"^{package}==.*$", f"{package}==99.0", pins.read_text(), flags=re.MULTILINE))
    found, text = plan(checkout)
    assert found == jobs
    assert (f"{package}==99.0" in text) == bool(jobs)


@pytest.mark.slow
def test_the_lines_of_the_page_evaluate_no_mask_again_that_comes_out_the_same(checkout):
    """Nor do they train a mask again that starts from it; only what sums up runs, because it records the new code."""
    section = PAGE.split("## A change that changes nothing")[1]
    lines = re.search(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[1].splitlines()
    edit(checkout, f"{PACKAGE}/prune/methods/wanda.py", *HARMLESS)
    assert planned(checkout) == cells(2)
    run = [snakemake(checkout, *shlex.split(line, comments=True)[1:]) for line in lines]
    assert re.findall(r"Pruning mini with (\w+)", "".join(run)) == ["wanda"]
    assert not re.findall("Hardening|Evaluating", "".join(run))
    assert "Collecting" in run[-1]
    assert planned(checkout) == {}


def test_a_row_made_by_other_code_than_the_workflow_asked_for_is_refused(checkout, tmp_path):
    """The code is edited after the jobs were planned and before one of them starts."""
    evaluation = checkout / "results/tiny/evaluate/mini/dense/0/0"
    shutil.rmtree(evaluation)
    shutil.rmtree(checkout / "results/tiny/aggregate")
    source = checkout / PACKAGE / "evaluate/perplexity.py"
    before = source.read_text()
    python = tmp_path / "tools/python"
    python.parent.mkdir()
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *" evaluate "*) echo "LATE = 1" >> {source};; esac\nexec python3 "$@"\n'
    )
    python.chmod(0o755)
    goal = "results/tiny/aggregate/mini/manifest.json"
    snakemake(checkout, goal, check=False, tools=python.parent)
    assert not (checkout / goal).exists()
    log = (checkout / "logs/tiny/aggregate/mini.log").read_text()
    assert re.search(
        r"error: cell mini/dense/0/0: results/tiny/evaluate/mini/dense/0/0 was made by code \w+, "
        r"the workflow requested \w+",
        log,
    )
    source.write_text(before)
    assert "evaluate" not in planned(checkout, goal)
    shutil.rmtree(evaluation)
    assert planned(checkout, goal)["evaluate"] == 1
