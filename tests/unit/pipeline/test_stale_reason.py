"""The words that a dry run shows: they name what differs between a result's provenance and what would run now."""

import json

import pytest

from leap_repro.pipeline.stale_reason import stale_reason

MODULES = {"leap_repro.prune.methods.wanda": "aaaa", "leap_repro.sparsity.masks": "bbbb"}
OPTIONS = {"steps": 4, "damping": 0.1}


@pytest.fixture
def folder(tmp_path):
    recorded = {"modules": MODULES, "parameters": {"options": OPTIONS}}
    (tmp_path / "provenance.json").write_text(json.dumps(recorded))
    return tmp_path


@pytest.mark.parametrize(
    ("modules", "options", "words"),
    [
        ({}, {}, ""),
        ({"leap_repro.prune.methods.wanda": "cccc"}, {}, "prune.methods.wanda changed"),
        ({"leap_repro.prune.new": "cccc"}, {}, "prune.new is new"),
        ({}, {"damping": 0.2}, "damping 0.1 -> 0.2"),
        ({}, {"rho": 1.0}, "rho unset -> 1.0"),
        ({"leap_repro.sparsity.masks": "x"}, {"steps": 5}, "sparsity.masks changed; steps 4 -> 5"),
    ],
)
def test_what_differs_has_its_name(folder, modules, options, words):
    assert stale_reason(folder, MODULES | modules, OPTIONS | options) == words


def test_what_is_no_longer_there_has_its_name(folder):
    assert stale_reason(folder, {"leap_repro.sparsity.masks": "bbbb"}, {"steps": 4}) == (
        "prune.methods.wanda is no longer run; damping 0.1 -> unset"
    )


def test_a_stage_without_options_is_compared_by_its_modules_alone(folder):
    assert stale_reason(folder, MODULES) == ""


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"modules": [], "parameters": {}}'])
def test_where_there_is_nothing_to_compare_there_are_no_words(tmp_path, text):
    assert stale_reason(tmp_path, MODULES) == ""
    (tmp_path / "provenance.json").write_text(text)
    assert stale_reason(tmp_path, MODULES, OPTIONS) == ""
