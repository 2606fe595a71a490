"""Tables and figures of a grid show what its methods fill, by module and not by name."""

import jinja2
import pytest

from leap_repro.pipeline import selection
from leap_repro.pipeline.grid import read_study


def test_the_extended_grid_has_the_variants_table_and_the_variants_facts(study):
    assert set(selection.tables(study, "extended")) - set(selection.tables(study)) == {"variants"}
    assert selection.method_facts(study, "extended")["leap-hard"]["variant_of"] == "leap"
    assert "leap-hard" not in selection.method_facts(study)


def test_the_evidence_has_its_tables_and_figures_and_each_shows_what_it_is_about(study):
    tables = {
        "differences",
        "crossings",
        "annealing",
        "few-steps",
        "fact-free",
        "correlations",
        "gap",
        "overlap",
        "claims",
    }
    assert tables < set(selection.tables(study, "evidence"))
    assert not tables & set(selection.tables(study))
    assert "leap-tau-from-1" in selection.table_arguments(study, "annealing").split()
    assert not {"leap-fact-free", "leap-50-steps"} & set(selection.table_arguments(study, "crossings").split())
    assert {"leap+optima", "ria"} < set(selection.table_arguments(study, "crossings").split())
    assert selection.table_arguments(study, "few-steps").split()[1:] == [
        "leap-cold-start",
        *("leap-50-steps", "leap-cold-start-50-steps", "leap-125-steps", "leap-cold-start-125-steps"),
    ]
    assert not set(selection.table_methods(study, "main", "evidence")) & {"leap+optima", "leap-layer", "leap-cosine"}
    assert selection.main_sparsities(study) == "0.0 0.45 0.5 0.6"
    methods = {
        name: list(selection.figure_methods(study, name, "evidence")) for name in selection.figures(study, "evidence")
    }
    assert methods["density"] == methods["density_by_kind"] == methods["training"] == ["leap"]
    assert methods["forest"] == ["leap", "admm"]
    assert methods["schedules"][0] == "leap"
    assert {"leap-tau-from-1", "leap-kappa-to-100", "leap-cosine"} < set(methods["schedules"])
    assert not {"leap-layer", "leap+optima", "maskllm"} & set(methods["schedules"]), "more than a schedule is another"
    assert set(methods["rounding"]) == {*methods["schedules"], "leap-layer"}


@pytest.mark.parametrize(
    ("methods", "figures", "subject"),
    [
        (["dense", "admm", "maskllm", "leap"], ["forest", "density", "accuracy"], "leap"),
        (["dense", "wanda", "maskllm"], ["density", "accuracy"], "maskllm"),
        (["dense", "wanda"], ["accuracy"], None),
        (["dense"], [], None),
    ],
)
def test_a_grid_has_the_figures_that_its_methods_fill(config, methods, figures, subject):
    scale = config["scales"]["miniature"]
    scale |= {"methods": methods, "extended": [], "only_models": {}}
    del scale["evidence"]
    study = read_study(config)
    assert selection.figures(study) == figures
    assert list(selection.figure_methods(study, "density")) == ([subject] if subject else [])


def test_a_figure_goes_by_module_not_by_name(config):
    config["methods"]["mine"] = config["methods"].pop("leap") | {"label": "Mine"}
    for line in config["methods"].values():
        keys = ("extends", "hardens", "variant_of", "parent", "budget_from")
        line |= {key: "mine" for key in keys if line.get(key) == "leap"}
    scale = config["scales"]["miniature"]
    scale |= {"methods": ["dense", "wanda", "mine"], "extended": [], "only_models": {}}
    del scale["evidence"]
    for other in config["scales"].values():
        other["options"] = {"mine" if name == "leap" else name: value for name, value in other["options"].items()}
    assert selection.figure_methods(read_study(config), "density")["mine"]["label"] == "Mine"


def test_the_density_figure_shows_a_method_before_its_variants(config):
    lines = {"leap-half": {"module": "leap", "variant_of": "leap", "warm_start": "wanda"}}
    config = config | {"methods": config["methods"] | lines}
    config["scales"]["miniature"]["methods"] = ["dense", "wanda", "leap-half", "leap"]
    assert list(selection.figure_methods(read_study(config), "density")) == ["leap"]


def test_the_figure_of_schedules_is_told_by_which_options_each_line_differs(config):
    config["methods"]["leap-cosine"]["label"] = "LEAP (half a wave)"
    found = selection.figure_methods(read_study(config), "schedules", "evidence")
    options = {name: facts["options"] for name, facts in found.items()}
    assert options["leap"] == []
    assert options["leap-cosine"] == ["kappa_schedule", "tau_schedule"]
    assert options["leap-tau-from-1"] == ["tau_start"]
    assert options["leap-kappa-to-100"] == ["kappa_end"]
    assert "options" not in selection.figure_methods(read_study(config), "rounding", "evidence")["leap"]


def test_every_table_has_a_caption_of_its_own(config, project):
    """In the report; a table without one would only be called by its name."""
    template = jinja2.Template((project / "workflow/report/study_table.rst").read_text())
    study = read_study(config)
    names = {name for grid in ("", "extended", "evidence") for name in selection.tables(study, grid)}
    for name in names - {*study.models, "time"}:
        assert f"**{name}**" not in template.render(snakemake={"wildcards": {"table": name}}), name


def test_the_accuracy_figure_shows_the_methods_of_the_main_table(config):
    study = read_study(config)
    for grid in ("", "extended", "evidence"):
        assert selection.figure_methods(study, "accuracy", grid) == selection.table_methods(study, "main", grid)
