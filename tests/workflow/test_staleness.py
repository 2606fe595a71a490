"""What runs again after a change: only what the change can touch. Counted in dry runs of a finished scratch copy."""

import pytest
from scratch import planned, snakemake

PACKAGE = "src/leap_repro"
AFTER_EVALUATION = {"collect_model": 1, "join_results": 1, "build_model_table": 1, "build_study_table": 2}
DOWNSTREAM = {**AFTER_EVALUATION, "plot_figure": 2, "all": 1}


def edit(checkout, file, old, new):
    path = checkout / file
    text = path.read_text()
    assert text.count(old) >= 1, (file, old)
    path.write_text(text.replace(old, new, 1))


def test_a_finished_grid_has_nothing_to_do(checkout):
    assert planned(checkout) == {}


def test_comments_docstrings_and_formatting_rerun_nothing(checkout):
    edit(checkout, f"{PACKAGE}/prune/wanda.py", "def prune_layer", "# a remark\n\n\ndef prune_layer")
    edit(checkout, f"{PACKAGE}/prune/wanda.py", "Prune the whole model", "Prune all of the model")
    edit(checkout, f"{PACKAGE}/evaluate/perplexity.py", "SEPARATOR = ", "SEPARATOR  =  ")
    assert planned(checkout) == {}


def test_logic_of_wanda_reruns_its_cells_and_those_that_start_from_it(checkout):
    edit(checkout, f"{PACKAGE}/prune/wanda.py", "layer.weight.abs() *", "1.0 * layer.weight.abs() *")
    jobs = planned(checkout)
    assert {rule: jobs[rule] for rule in ("prune", "harden", "evaluate")} == {"prune": 2, "harden": 2, "evaluate": 2}
    assert not set(jobs) & {"fetch_model", "fetch_data", "build_tokens"}


def test_the_evaluator_reruns_evaluations_and_later(checkout):
    edit(checkout, f"{PACKAGE}/evaluate/perplexity.py", "math.exp(losses.mean())", "math.exp(1.0 * losses.mean())")
    assert planned(checkout) == {"evaluate": 4, "build_time_table": 1, **DOWNSTREAM}


def test_a_figure_module_reruns_that_figure(checkout):
    edit(checkout, f"{PACKAGE}/figures/density.py", "2.6)", "2.7)")
    assert planned(checkout) == {"plot_figure": 1, "all": 1}


def test_a_method_option_reruns_that_method_only(checkout):
    edit(checkout, "config.yaml", "steps: 4", "steps: 5")
    jobs = planned(checkout)
    assert {rule: jobs[rule] for rule in ("prune", "harden", "evaluate")} == {"prune": 1, "harden": 1, "evaluate": 1}


@pytest.mark.parametrize(("old", "new", "cells"), [("[0.5]", "[0.5, 0.6]", 3), ("seeds: [0]", "seeds: [0, 1]", 4)])
def test_a_larger_grid_runs_only_its_new_cells(checkout, old, new, cells):
    edit(checkout, "config.yaml", old, new)
    jobs = planned(checkout)
    assert {rule: jobs[rule] for rule in ("prune", "harden", "evaluate")} == dict.fromkeys(
        ("prune", "harden", "evaluate"), cells
    )
    assert "fetch_model" not in jobs


def test_a_dropped_method_reruns_only_what_sums_up(checkout):
    edit(checkout, "config.yaml", "methods: [dense, wanda, admm, leap]", "methods: [dense, admm, leap]")
    assert not set(planned(checkout)) & {"prune", "harden", "evaluate", "build_tokens"}


def test_a_config_that_is_wrong_stops_before_any_job(checkout):
    edit(checkout, "config.yaml", "sparsities: [0.5]", "sparsities: [1.5]")
    output = snakemake(checkout, check=False)
    assert "config: scales.tiny.sparsities.0 is 1.5; a sparsity must be a number in [0, 1)" in output
    assert "Select jobs" not in output
