"""A method or option that does not exist is an error of one sentence that names it."""

from __future__ import annotations

import pytest

from leap_repro.errors import UserError
from leap_repro.prune.run import load_method

METHODS = ("dense", "magnitude", "wanda", "sparsegpt", "admm", "leap", "maskllm", "patch")


@pytest.mark.parametrize("module", METHODS)
def test_each_method_has_options_and_a_way_to_prune(module):
    method, options = load_method(module, {})
    assert callable(method.prune_cell)
    assert options == method.options()


@pytest.mark.parametrize(
    ("module", "options"),
    [("sparsegpt", {"block_size": 7}), ("admm", {"group": "row", "rho": 2.0}), ("leap", {"steps": 3})],
)
def test_options_reach_the_method(module, options):
    _, found = load_method(module, options)
    assert {name: getattr(found, name) for name in options} == options


@pytest.mark.parametrize("module", ["thanoss", "magnitud", "Wanda", "select", "trainer", "no.such"])
def test_a_module_that_is_no_method_is_an_error_that_names_it(module):
    with pytest.raises(UserError, match=rf"leap_repro\.prune\.methods\.{module}") as caught:
        load_method(module, {})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("module", METHODS)
def test_an_unknown_option_is_an_error_that_names_method_and_option(module):
    with pytest.raises(UserError, match=rf"{module}.*sparsness") as caught:
        load_method(module, {"sparsness": 0.5})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "options"),
    [("admm", {"schedule": "cubic"}), ("leap", {"batch_size": 6, "micro_batch_size": 4})],
)
def test_a_value_that_is_not_allowed_is_an_error_that_names_it(module, options):
    with pytest.raises(UserError, match=str(next(iter(options.values())))):
        load_method(module, options)
