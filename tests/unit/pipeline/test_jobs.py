"""What jobs read and are told follows from the configuration, and from nothing that a Snakemake file decides."""

import argparse
import json
import shlex
import sys
from pathlib import Path

from leap_repro.cli import json_argument, run_stage
from leap_repro.pipeline import jobs
from leap_repro.pipeline.grid import read_study


def test_a_methods_sources_are_its_tokens_and_the_cells_that_it_starts_from(study):
    def sources(method, sparsity):
        return jobs.prune_sources(study, "m", method, sparsity, "3")

    assert sources("magnitude", "0.5") == {}
    assert sources("wanda", "0.5") == {"tokens": "calibration/m/calibration/3"}
    assert sources("leap", "0.6") == {
        "tokens": "calibration/m/mask_training/3",
        "warm-start": "harden/m/wanda/0.6/3",
        "held-out": "calibration/m/held_out/0",
    }
    assert study.settings.seeds[0] == 0, "all seeds are scored on one held-out text"
    assert sources("leap+optima", "0.6") == {"tokens": "calibration/m/calibration/3", "parent": "harden/m/leap/0.6/3"}
    assert sources("admm+leap-budget", "0.6")["budgets"] == "harden/m/leap/0.6/3"
    assert sources("leap-from-magnitude", "0.6")["warm-start"] == "harden/m/magnitude/0.6/0", "no seed makes another"
    assert sources("leap+recover", "0.6") == {
        "tokens": "calibration/m/mask_training/3",
        "parent": "harden/m/leap/0.6/3",
    }
    assert sources("patch-tile", "0.45")["pattern-start"] == "harden/m/sparsegpt-2-4/0.5/3"


def test_a_grids_token_shards_are_those_that_its_cells_read(study):
    default, extended, evidence = (set(jobs.token_shards(study, grid)) for grid in ("", "extended", "evidence"))
    model = next(iter(study.models))
    assert {f"{model}/{role}/0" for role in ("calibration", "mask_training", "held_out")} < default
    assert len(default) == 3 * len(study.models), "one seed"
    assert f"{model}/mask_training_grouped/0" in extended - default
    assert f"{model}/calibration/2" in evidence - default


def test_data_come_first_then_model_by_model_and_within_one_the_trainings_and_what_they_start_from(study):
    priority = jobs.priorities(study)
    data = priority({"role": "tasks"})
    assert [priority({"model": model, "method": "admm"}) for model in study.models] == [10, 8, 6, 4, 2]
    early = [method for method in study.methods if priority({"model": "gemma3-1b-mini", "method": method}) == 9]
    assert {"leap", "wanda", "maskllm", "sparsegpt-2-4"} <= set(early)
    assert not {"dense", "magnitude", "admm", "sparsegpt"} & set(early)
    assert data > max(priority({"model": model, "method": "leap"}) for model in study.models)
    assert priority({"model": "a model of no study"}) == 0, "the refusal of an unknown model comes from elsewhere"


def test_a_reconstruction_is_told_its_selector_whatever_the_shell_makes_of_it(study):
    words = shlex.split(jobs.prune_arguments(study, "wanda+optima", {"tokens": "a/manifest.json"}))
    assert words[:3] == ["--tokens", "a/manifest.json", "--selector"]
    assert json.loads(words[3]) == {"module": "wanda", "options": {}}


def test_what_only_tables_and_clusters_read_of_a_model_fetches_nothing_again(study, config):
    before = jobs.model_source(study, "gemma3-1b-mini")
    model = config["scales"]["miniature"]["models"]["gemma3-1b-mini"]
    model |= {"stands_for": "another", "parameters": 3}
    assert jobs.model_source(read_study(config), "gemma3-1b-mini") == before
    model["sha256"] = "0" * 64
    assert jobs.model_source(read_study(config), "gemma3-1b-mini") != before


def test_files_on_this_machine_are_watched(config, tmp_path):
    scale = config["scales"]["miniature"]
    for name in ("model.safetensors", "stale.safetensors", "tokenizer.json", "config.json", "code.py"):
        (tmp_path / name).touch()
    for place in ("boolq", "sets/piqa"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "validation.parquet").touch()
    scale["models"]["mine"] = {"source": "path", "path": str(tmp_path)}
    scale["data"]["calibration"] = {"source": "path", "path": "~/text.txt"}
    further = {"boolq": {"definition": "super_glue/boolq/default.yaml", "path": str(tmp_path / "boolq")}}
    scale["data"]["tasks"] = {"source": "path", "path": str(tmp_path / "sets"), "further": further}
    study = read_study(config)
    watched = ("config.json", "model.safetensors", "tokenizer.json")
    assert jobs.model_files(study, "mine") == [str(tmp_path / name) for name in watched]
    assert jobs.model_files(study, "gemma3-1b-mini") == []
    assert jobs.data_files(study, "calibration") == [str(Path.home() / "text.txt")]
    sets = [str(tmp_path / place / "validation.parquet") for place in ("sets/piqa", "boolq")]
    assert jobs.data_files(study, "tasks") == sets


def test_shards_are_cut_as_the_scale_says(study):
    assert jobs.shard_arguments(study, "calibration") == "--recipe windows --sequences 128 --length 128"
    assert jobs.shard_arguments(study, "held_out") == "--recipe windows --sequences 32 --length 128 --after 128"
    assert jobs.shard_arguments(study, "mask_training") == "--recipe packed --sequences 8000 --length 128"


def test_a_row_is_traced_to_two_folders_a_cell_and_three_benchmarks(study):
    folders = list(jobs.scored_folders(study, "gemma3-1b-mini"))
    assert folders[:2] == ["harden/gemma3-1b-mini/dense/0/0", "evaluate/gemma3-1b-mini/dense/0/0"]
    assert len(folders) == 2 * len(study.cells("gemma3-1b-mini"))
    assert len(jobs.benchmark_names(study)) == 3 * len(study.cells())


def test_a_line_that_hardens_anothers_logits_reads_its_pruning_and_has_none(study):
    assert jobs.hardened_from(study, "m", "leap-threshold", "0.6", "0") == "prune/m/leap/0.6/0"
    assert jobs.hardened_from(study, "m", "leap-hard", "0.6", "0") == "prune/m/leap-hard/0.6/0"
    names = jobs.benchmark_names(study, "extended")
    assert not [name for name in names if name.startswith("prune/") and "threshold" in name]
    assert {f"{stage}/qwen2.5-0.5b-mini/leap-threshold/0.6/0" for stage in ("harden", "evaluate")} < set(names)
    assert len(names) == len(set(names))


def test_logits_stay_until_the_cells_of_every_grid_have_hardened_them(study):
    assert jobs.logits_read_by(study, "qwen2.5-0.5b-mini") == {
        "qwen2.5-0.5b-mini/leap/0.6/0": ["qwen2.5-0.5b-mini/leap-threshold/0.6/0"],
        "qwen2.5-0.5b-mini/patch-tile/0.45/0": ["qwen2.5-0.5b-mini/patch-tile-threshold/0.45/0"],
    }
    assert jobs.logits_read_by(study, "gemma3-1b-mini") == {}


def test_the_benchmark_times_what_prunes_without_training(study):
    expected = {"magnitude", "wanda", "sparsegpt", "thanos", "admm", "wanda+optima"}
    assert set(jobs.one_shot_methods(study)) == expected


def test_the_calibration_sample_is_drawn_as_the_scale_says(config):
    assert "--recipe windows " in jobs.shard_arguments(read_study(config), "calibration")
    config["scales"]["miniature"]["calibration"]["draw"] = "as_released"
    changed = read_study(config)
    assert "--recipe windows_as_released " in jobs.shard_arguments(changed, "calibration")
    assert "--recipe packed " in jobs.shard_arguments(changed, "mask_training")


def test_arguments_in_a_file_are_read_as_if_they_stood_on_the_command_line(tmp_path, monkeypatch):
    """Cells, a line each; JSON with marks of every kind; none at all."""
    monkeypatch.chdir(tmp_path)
    facts = {"a b": {"label": "it's $HOME; {x} @\u2028"}}
    given = {
        "--cells": [f"mini/wanda/0.5/{seed}" for seed in range(5000)],
        "--methods": [jobs.as_json(facts)],
        "--shards": [],
    }
    found = []
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", nargs="+")
    parser.add_argument("--methods", type=json_argument)
    parser.add_argument("--shards", nargs="*")
    words = [word for name, values in given.items() for word in (name, jobs.from_file(values))]
    assert max(map(len, words)) < 100
    monkeypatch.setattr(sys, "argv", ["stage", *words])
    run_stage(found.append, parser)
    assert (found[0].cells, found[0].methods, found[0].shards) == (given["--cells"], facts, [])


def test_a_file_of_arguments_is_named_by_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = jobs.from_file(["a", "b"]), jobs.from_file(["a", "c"])
    assert first != second
    (tmp_path / first[1:]).write_text("damaged")
    assert jobs.from_file(["a", "b"]) == first
    assert (tmp_path / first[1:]).read_text() == "a\nb\n"


def test_a_line_on_another_text_reads_that_text_and_starts_on_it(study):
    found = jobs.prune_sources(study, "m", "leap-fact-free", "0.6", "2")
    assert found == {
        "tokens": "calibration/m/mask_training-fact-free/2",
        "warm-start": "harden/m/wanda-fact-free/0.6/2",
    }
    assert jobs.prune_sources(study, "m", "admm-control", "0.6", "1") == {
        "tokens": "calibration/m/calibration-control/1"
    }
    assert jobs.shard_text("calibration-control") == "data/calibration-control"
    assert jobs.shard_text("held_out") == "data/calibration"
    for role in ("calibration", "mask_training"):
        assert jobs.shard_arguments(study, f"{role}-fact-free") == jobs.shard_arguments(study, role)
        assert study.data[f"{role}-fact-free"] == {"source": "bundled", "split": role, "without": "tested-facts"}


def test_what_extends_a_line_reads_its_text(config):
    config["methods"]["leap-free-half"] = {"extends": "leap-fact-free", "label": "Half", "options": {"steps": 250}}
    study = read_study(config)
    assert study.methods["leap-free-half"].text == "fact-free"
    assert study.methods["leap-free-half"].warm_start == "wanda-fact-free"
