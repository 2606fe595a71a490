"""A prune job's fingerprint holds its own method's file and no other's."""

from types import SimpleNamespace

from leap_repro.pipeline.fingerprint import closure
from leap_repro.pipeline.tracking import Tracker, code, prune_modules
from leap_repro.prune.methods import names


def methods_in(modules):
    found = closure(*modules)
    prefix = "leap_repro.prune.methods."
    return {name.removeprefix(prefix) for name in found if name.startswith(prefix)}


def test_a_method_runs_its_own_file_and_that_of_its_selector(study):
    for line in study.methods.values():
        assert methods_in(prune_modules(line)) == set(line.modules), line.name
    assert methods_in(prune_modules(study.methods["wanda+optima"])) == {"optima", "wanda"}
    assert {name for line in study.methods.values() for name in line.modules} == set(names()) - {"imported"}


def test_layer_wise_methods_do_not_run_the_trainer_nor_learned_ones_the_driver(study):
    def run(name):
        return closure(*prune_modules(study.methods[name]))

    driver, trainer = "leap_repro.prune.layerwise.driver", "leap_repro.prune.learned.trainer"
    assert (driver in run("admm"), trainer in run("admm")) == (True, False)
    assert (driver in run("leap"), trainer in run("leap")) == (False, True)


def test_a_rule_is_given_code_pins_and_words(project, tmp_path):
    params = Tracker(project / "envs/requirements.txt").params("report.figures.{w.figure}")
    wildcards = SimpleNamespace(figure="density")
    assert params["code"](wildcards) == code("leap_repro.report.figures.density")
    assert "matplotlib==" in params["packages"](wildcards)
    assert "torch==" not in params["packages"](wildcards)
    assert params["stale_reason"](wildcards, [tmp_path / "density.png"]) == ""
