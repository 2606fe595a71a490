"""A method's file is loaded from this package, from a file of one's own, or from an installed package; one that cannot
be is named with its own error, and breaks no other method."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from outside_methods import TEMPERED, install, methods_may_come, write  # noqa: F401

from leap_repro.errors import UserError
from leap_repro.pipeline.stages.prune import load_method, load_selector
from leap_repro.prune import methods
from leap_repro.prune.job import Job
from leap_repro.prune.layerwise.asked import GIVEN_BY
from leap_repro.prune.layerwise.layer import Layer
from leap_repro.prune.layerwise.statistics import InputStatistics
from leap_repro.prune.methods import declaration, declarations, names

pytestmark = pytest.mark.usefixtures("methods_may_come")
MASKED = TEMPERED.replace(', statistics="norms"', "")
BROKEN = {
    "def f(:\n": ", line 1: SyntaxError: invalid syntax",
    "import no_such_module\n": ", line 1: ModuleNotFoundError: No module named 'no_such_module'",
    "from leap_repro.checked import Rates\n": ", line 1: ImportError: cannot import name 'Rates'",
    "X = 1\n\n\ndef f():\n    return Y\n\n\nf()\n": ", line 5: NameError: name 'Y' is not defined",
    "import sys\nsys.exit(3)\n": ", line 2: SystemExit: 3",
    "X = 1\n": " declares no METHOD: it must end with one",
    "METHOD = None\n": " declares no METHOD: it must end with one",
    "METHOD = 'wanda'\n": ": METHOD is of type str; it must be LayerWise",
    TEMPERED.replace("options=Options", "options=dict"): ", line 26: options is <class 'dict'>; it must be a class",
    TEMPERED.replace("options=Options", "options=Options()"): "it must be a class derived from",
    MASKED: 'line 22 reads statistics.column_norms, but METHOD has no statistics: it must have statistics="norms"',
    TEMPERED.replace("column_norms**", "hessian.diagonal() **"): "reads statistics.hessian, but METHOD has "
    "statistics='norms': it must have statistics=\"gram\"",
    TEMPERED.replace("column_norms**", "variances**"): 'it must have statistics="moments"',
}
IDS = [f"{number}" for number in range(len(BROKEN))]


def refused(name):
    with pytest.raises(UserError) as caught:
        declaration(name)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(("text", "words"), BROKEN.items(), ids=IDS)
def test_a_file_of_ones_own_that_cannot_be_used_is_named_with_its_own_error(tmp_path, text, words):
    file = write(tmp_path / "tempered.py", text)
    said = refused(str(file))
    assert f"the method file {file}" in said
    assert words in said
    assert declaration("wanda").selects, "no other method minds"


@pytest.mark.parametrize(("text", "words"), BROKEN.items(), ids=IDS)
def test_a_file_of_this_package_that_cannot_be_used_breaks_no_other(tmp_path, monkeypatch, text, words):
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    file = write(tmp_path / "newcomer.py", text)
    said = refused("newcomer")
    assert f"the method file {file}" in said
    assert words in said
    assert set(declarations()) == set(names()) - {"newcomer"}
    assert "admm" in declarations()


def test_what_a_rule_may_read_is_what_statistics_have():
    found = {name for name, value in vars(InputStatistics).items() if isinstance(value, property)}
    assert set(GIVEN_BY) == {name for name in found if not name.startswith("_")}


def test_a_rule_that_was_not_seen_to_read_statistics_is_told_when_it_does():
    norms = InputStatistics(4, torch.device("cpu"), needs_gram=False)
    for statistics, name, words in (
        (None, "gram", "statistics=…"),
        (norms, "gram", "gram"),
        (norms, "means", "moments"),
    ):
        with pytest.raises(UserError, match=words):
            getattr(Layer("a", torch.ones(2, 4), statistics, Fraction(1, 2)).statistics, name)


def test_a_file_of_ones_own_is_a_method_wherever_its_path_starts(tmp_path, monkeypatch):
    write(tmp_path / "mine/tempered.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    absolute = str(tmp_path / "mine/tempered.py")
    found = [load_method(name, {"exponent": 0.25}) for name in ("mine/tempered.py", absolute, "~/mine/tempered.py")]
    assert {(id(method), options.exponent) for method, options in found} == {(id(found[0][0]), 0.25)}
    assert not list(tmp_path.rglob("*.pyc"))
    with pytest.raises(UserError, match=r"options of mine/tempered\.py.*exponent is 0; it must be a number above 0"):
        load_method("mine/tempered.py", {"exponent": 0})
    assert "there is no file mine/temper.py with a pruning method" in refused("mine/temper.py")


def test_a_file_of_ones_own_prunes_and_is_a_selector(tmp_path, tiny_llama, tokens):
    file = str(write(tmp_path / "tempered.py"))
    method, options = load_method(file, {"exponent": 1.0})
    wanda = load_method("wanda", {})
    cell = method.prune_cell(Job(tiny_llama(), options, Fraction("0.5"), 0, tokens))
    other = wanda[0].prune_cell(Job(tiny_llama(), wanda[1], Fraction("0.5"), 0, tokens))
    kept = [int(mask.sum()) for mask in cell.tensors.values()]
    assert kept == [mask.numel() // 2 for mask in cell.tensors.values()]
    assert any(not torch.equal(mask, other.tensors[name]) for name, mask in cell.tensors.items())
    assert load_selector({"module": file}).method is method


def test_two_methods_of_one_name_are_refused(tmp_path):
    first, second = write(tmp_path / "a/tempered.py"), write(tmp_path / "b/tempered.py")
    assert declaration(str(first)).name == "tempered"
    assert f"another method has the same name, {first}" in refused(str(second))
    own = write(tmp_path / "wanda.py")
    assert f"the method file {own} has the name of another method, 'wanda'" in refused(str(own))


def test_an_installed_package_offers_methods(tmp_path, monkeypatch):
    write(tmp_path / "their_methods/tempered.py", TEMPERED)
    write(tmp_path / "their_methods/torn.py", "import no_such_module\n")
    install(
        tmp_path, "their_methods", tempered="their_methods.tempered", torn="their_methods.torn", gone="their_methods.no"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_method("tempered", {"exponent": 2.0})[1].exponent == 2
    file = tmp_path / "their_methods/torn.py"
    assert f"{file}, line 1: ModuleNotFoundError: No module named 'no_such_module'" in refused("torn")
    assert "ModuleNotFoundError: No module named 'their_methods.no'" in refused("gone")
    assert "has the name of another method, 'tempered'" in refused(str(write(tmp_path / "mine/tempered.py")))


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ({"a": {"tempered": "one.tempered"}, "b": {"tempered": "two.tempered"}}, "one.tempered and two.tempered"),
        ({"a": {"wanda": "one.wanda"}}, "one.wanda registers the pruning method 'wanda'"),
    ],
)
def test_a_name_that_installed_packages_use_twice_is_refused(tmp_path, monkeypatch, points, words):
    for package, offered in points.items():
        install(tmp_path, package, **offered)
    monkeypatch.syspath_prepend(tmp_path)
    assert words in refused("wanda")


def test_the_prune_stage_takes_a_path(tmp_path):
    """Far enough to see that options are checked: the rest is a job's, of which a workflow test has one."""
    write(tmp_path / "tempered.py")
    arguments = ["prune", "--model", "none", "--sparsity", "0.5", "--output", "out", "--module", "tempered.py"]
    done = subprocess.run(
        [sys.executable, "-m", "leap_repro.pipeline", *arguments, "--options", '{"exponent": -1}'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "options of tempered.py: exponent is -1; it must be a number above 0" in done.stderr
    assert not Path(tmp_path, "out").exists()


def test_a_file_in_the_home_of_nobody_is_refused(refused):
    with refused("module", "~nosuchuser", "no such home folder"):
        declaration("~nosuchuser/mine.py")
