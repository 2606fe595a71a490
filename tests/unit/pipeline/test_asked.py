"""What collecting asks of every result: as the jobs of the same study are told it."""

import json

import pytest

from leap_repro.pipeline import jobs
from leap_repro.pipeline.asked import STAGES, asked_of, traced_folders
from leap_repro.pipeline.tracking import code, prune_modules

MODEL = "qwen2.5-0.5b-mini"


def test_every_stage_and_method_of_the_models_cells_is_asked_for(study):
    asked = asked_of(study, MODEL)
    assert set(asked["code"]) == set(STAGES)
    methods = {cell.method for cell in study.cells(MODEL)}
    assert methods <= set(asked["methods"])
    assert asked["methods"]["leap"]["code"] == code(*prune_modules(study.methods["leap"]))
    codes = {line["parameters"]["module"]: line["code"] for line in asked["methods"].values()}
    assert len(set(codes.values())) == len(codes)


def test_what_a_method_starts_from_is_asked_for_too_and_nothing_else(study):
    asked = asked_of(study, MODEL, "extended")["methods"]
    started = {name for line in asked for name in study.methods[line].starts.values()}
    hardened = {study.methods[line].hardens for line in asked} - {None}
    assert started | hardened <= set(asked)
    cells = {cell.method for cell in study.cells(MODEL, "extended")}
    assert set(asked) - cells <= started | hardened | {study.methods[line].pattern_start for line in asked}


def test_places_are_filled_in_as_the_jobs_of_a_cell_have_them(study):
    place = {"model": MODEL, "sparsity": "0.6", "seed": "0"}
    for name, line in asked_of(study, MODEL, "extended")["methods"].items():
        told = jobs.prune_sources(study, MODEL, name, "0.6", "0")
        filled = {argument: folder.format(**place) for argument, folder in line["inputs"].items()}
        assert filled == {argument.replace("-", "_"): folder for argument, folder in told.items()}
        assert f"prune/{MODEL}/{line['pruned']}/0.6/0" == jobs.hardened_from(study, MODEL, name, "0.6", "0")


def test_all_that_a_models_rows_are_traced_to_is_read_when_they_are_collected(study):
    folders = traced_folders(study, MODEL, "extended")
    assert len(folders) == len(set(folders))
    assert {f"models/{MODEL}", "data/tasks", "data/perplexity", f"calibration/{MODEL}/mask_training/0"} < set(folders)
    for cell in study.cells(MODEL, "extended"):
        assert {f"prune/{study.pruned(cell).path}", f"harden/{cell.path}", f"evaluate/{cell.path}"} < set(folders)


@pytest.mark.parametrize("grid", ["", "extended", "evidence"])
def test_it_fits_a_command_line(study, grid):
    """Linux takes 131,072 bytes."""
    assert all(len(json.dumps(asked_of(study, model, grid))) < 60_000 for model in study.models)


def test_shards_and_scores_are_asked_for_as_the_jobs_are_told(study):
    asked = asked_of(study, MODEL, "evidence")
    assert {"calibration", "mask_training", "held_out"} <= set(asked["shards"])
    for role, shard in asked["shards"].items():
        told = jobs.shard_arguments(study, role).split()
        named = dict(zip(told[::2], told[1::2], strict=True))
        expected = {f"--{name}": str(value) for name, value in shard["parameters"].items() if value}
        assert named == expected
    assert asked["scoring"]["lengths"] == study.settings.evaluation.perplexity_lengths
    assert asked["scoring"]["dtype"] == study.settings.dtype
