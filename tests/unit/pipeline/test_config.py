"""Every mistake in the config is told in one sentence before any job starts, and the real config is right."""

import json
import os
import re
import subprocess
import sys
from fractions import Fraction

import jsonschema
import pytest
import yaml
from config_schema import SCHEMA

from leap_repro.errors import MOST_SHOWN, UserError
from leap_repro.pipeline.config import json_schema
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import project_files

MISSING = ...
LEAP = {"module": "leap", "warm_start": "wanda"}
FURTHER = {"definition": "super_glue/boolq/default.yaml", "path": "boolq"}

# where (dots between keys), what is put there, what the sentence must contain
BAD = [
    # unknown keys, at every level
    ("colour", 1, "colour"),
    ("scales.miniature.colour", 1, "colour"),
    ("scales.miniature.models.tiny", {"source": "bundled", "name": "x", "revision": "main"}, "revision"),
    ("scales.miniature.models.tiny", {"source": "path", "path": "x", "sha256": "0" * 64}, "sha256"),
    ("scales.miniature.data.c4", {"source": "path", "path": "x.txt"}, "c4"),
    ("scales.miniature.data.perplexity.column", "text", "column"),
    ("scales.miniature.data.tasks.split", "test", "split"),
    ("scales.miniature.calibration.size", 3, "size"),
    ("scales.miniature.evaluation.stride", 3, "stride"),
    ("methods.wanda.tokens", "calibration", "tokens"),
    ("scales.paper.colour", 1, "colour"),
    # options that the method's module does not have
    ("methods.sparsegpt.options.blocksize", 64, "blocksize"),
    ("methods.magnitude.options", {"damping": 0.1}, "damping"),
    ("methods.leap.options.lambda1", 7.0, "lambda1"),
    ("scales.miniature.options.leap.step", 10, "step"),
    ("scales.miniature.options.wanda", {"damping": 0.1}, "damping"),
    ("scales.miniature.options.leap.steps", "many", "many"),
    ("scales.miniature.options.lepa", {"steps": 10}, "lepa"),
    # wrong types and values
    ("scale", 3, "scale"),
    ("scales.miniature", [], "scales.miniature"),
    ("methods", ["wanda"], "methods"),
    ("methods.wanda", None, "methods.wanda"),
    ("methods.admm.options.iterations", 0, "iterations"),
    ("methods.admm.options.iterations", 2.5, "2.5"),
    ("methods.admm.options.group", "column", "column"),
    ("methods.leap.hardening", "soft", "soft"),
    # patterns
    ("methods.wanda-2-4.options.pattern", "2:3", "2:3"),
    ("methods.wanda-2-4.options.pattern", 124, "124"),
    ("methods.wanda.options", {"pattern": "2:4"}, "methods.wanda.options.pattern"),
    ("methods.wanda-2-4.sparsities", [0.5, 0.6], "[0.5, 0.6]"),
    ("methods.sparsegpt-2-4.sparsities", [0.6], "0.6"),
    ("methods.sparsegpt-2-4.options.block_size", 6, "methods.sparsegpt-2-4.options.block_size"),
    ("methods.wanda.options", {"rounding": "floor"}, "floor"),
    ("scales.miniature.threads", "two", "two"),
    ("scales.miniature.bits", "exact", "portable"),
    ("scales.paper.bits", "portable", "dtype must be float32"),
    ("scales.miniature.dtype", "int8", "int8"),
    ("scales.miniature.calibration.length", 1, "calibration.length"),
    ("scales.miniature.calibration.sequences", -1, "-1"),
    ("scales.miniature.evaluation.perplexity_lengths", [64, 64], "[64, 64]"),
    ("scales.miniature.models.tiny", {"source": "bundled", "name": "x", "sha256": "abc"}, "abc"),
    # the grid
    ("scale", "huge", "huge"),
    ("scales.miniature.sparsities", [1.0], "1.0"),
    ("scales.miniature.sparsities", [-0.1], "-0.1"),
    ("scales.miniature.sparsities", ["half"], "half"),
    ("scales.miniature.sparsities", [True], "True"),
    ("scales.miniature.sparsities", [float("nan")], "nan"),
    ("scales.miniature.sparsities", [0.5, 0.5], "[0.5, 0.5]"),
    ("scales.miniature.sparsities", [], "sparsities"),
    ("scales.miniature.seeds", [0, 0], "[0, 0]"),
    ("scales.miniature.seeds", [], "seeds"),
    ("scales.miniature.seeds", [-1], "-1"),
    ("scales.miniature.seeds", [1.0], "1.0"),
    ("scales.miniature.methods", [], "methods"),
    ("scales.miniature.methods", ["dense", "wandb"], "wandb"),
    ("scales.miniature.models", {}, "models"),
    ("scales.miniature.extended", ["wandb"], "wandb"),
    ("scales.miniature.extended", ["wanda-2-4", "wanda-2-4"], "it must be a list of different method names"),
    ("scales.miniature.cluster", {"gpus": 2}, "scales.miniature.cluster.gpus is 2; it must be 0 or 1"),
    ("scales.miniature.cluster", {"gpus": True}, "scales.miniature.cluster.gpus is True"),
    ("methods.leap.gpus", 0, "methods.leap.gpus is 0"),
    (
        "methods.wanda.gpus",
        2,
        "methods.wanda.gpus is 2; only the modules ['leap', 'maskllm', 'patch'] train",
    ),
    ("scales.miniature.gpus", {"wanda": 2}, "scales.*.gpus.wanda is 2; only the modules"),
    ("scales.miniature.gpus", {"wandb": 2}, "scales.*.gpus names the unknown method 'wandb'"),
    ("scales.miniature.gpus", {"leap": 3}, "scales.*.gpus.leap is 3; it must divide the"),
    ("scales.miniature.options.leap", None, "scales.miniature.options.leap is None; it must be a mapping"),
    ("scales.miniature.sparsities", [[0.5]], "scales.miniature.sparsities.0 is [0.5]"),
    ("methods.wanda.options", None, "methods.wanda.options is None; it must be a mapping"),
    ("scales.miniature.options", {5: {}}, "scales.miniature.options has the key 5; it must be a text"),
    ("scales.miniature.options.leap", {5: 1}, "has the key 5"),
    ("scales.miniature.only_models", {5: ["x"]}, "scales.miniature.only_models has the key 5"),
    ("scales.paper.data.calibration.expect", {5: 3}, "has the key 5"),
    ("scales.paper.data.tasks.sets.piqa.files", {5: "x"}, "has the key 5"),
    ("scales.miniature.data.tasks.further", {"boolq": FURTHER | {"id": None}}, "further.boolq.id is null"),
    ("scales.miniature.data.tasks.further", {"boolq": FURTHER | {"expect": {"a": 1}}}, "further.boolq.expect"),
    ("scales.miniature.models.tiny", {"source": "bundled", "name": "x", "sha256": None}, "models.tiny.sha256 is null"),
    ("methods.wanda.sparsities", None, "methods.wanda.sparsities is null; give it a value or leave it out"),
    ("methods.leap.selector", "nope", "methods.leap.selector is 'nope'; only the modules ['optima'] have it"),
    ("methods.wanda.changes", "x", "only an entry with extends, hardens or variant_of may have it"),
    ("scales.miniature.only_models", {"wandb": ["qwen2.5-0.5b-mini"]}, "wandb"),
    ("scales.miniature.only_models", {"wanda": ["qwen3"]}, "qwen3"),
    ("scales.miniature.only_models", {"wanda": []}, "it must be a list of different model names"),
    ("scales.miniature.extended", ["wanda"], "'wanda', which is in methods already"),
    ("methods.wanda.variant_of", "wandb", "wandb"),
    ("methods.wanda.sparsities", [1.5], "1.5"),
    ("methods.wanda.module", "wandb", "wandb"),
    ("methods.leap.warm_start", "wandb", "wandb"),
    ("methods.leap.warm_start", "leap-threshold", "leap-threshold"),
    ("methods.wanda.sparsities", [0.7], "does not run at every sparsity"),
    ("methods.leap.options.tau_schedule", "steep", "steep"),
    ("methods.leap.options.state_dtype", "int4", "int4"),
    ("methods.leap.options.gradients_dtype", "float16", "float16"),
    ("methods.leap.options.logits_rounding", "stochastic", "logits_dtype must be bfloat16, not float32"),
    # 2:4 and the tiles over it
    ("methods.maskllm.sparsities", [0.5, 0.6], "methods.maskllm.sparsities"),
    ("methods.patch-tile.sparsities", [0.55], "2:4 tiles drop at most 0.5"),
    ("methods.patch-tile.pattern_start", MISSING, "methods.patch-tile.pattern_start"),
    ("methods.patch-tile.pattern_start", "sparsegpt", "'sparsegpt'; it must be a 2:4 method"),
    ("methods.leap.pattern_start", "sparsegpt-2-4", "methods.leap.pattern_start"),
    ("methods.patch-tile.options.tile", 6, "it must be a multiple of 4"),
    # reconstructions and the methods whose masks they complete
    ("methods.wanda+recover.parent", MISSING, "methods.wanda+recover.parent is None; it must be a method"),
    ("methods.wanda+recover.parent", "wandb", "'wandb'; it must be a method that has no parent itself"),
    ("methods.wanda+recover.parent", "leap+recover", "'leap+recover'; it must be a method that has no parent itself"),
    ("methods.wanda+recover.parent", "wanda-2-4", "'wanda-2-4', which does not run at every sparsity of wanda+recover"),
    ("methods.wanda+recover.gpus", 2, "only the modules ['leap', 'maskllm', 'patch'] train on several GPUs"),
    ("methods.leap.warm_start", "wanda+recover", "'wanda+recover'; it must be a one-shot method"),
    ("methods.leap.parent", "wanda", "methods.leap.parent is 'wanda'; only the modules ['optima', 'recover'] have it"),
    ("methods.leap+optima.selector", "wanda", "methods.leap+optima.selector is 'wanda'; leave it out, or the parent"),
    ("methods.wanda+optima.selector", "owl+budget", "'owl+budget'; it must be a one-shot method"),
    # budgets of another method
    (
        "methods.wanda+leap-budget.budget_from",
        "admm",
        "is 'admm'; it must be a method with one budget for all",
    ),
    ("methods.wanda+leap-budget.budget_from", "leap-layer", "it must be a method with one budget for all matrices"),
    ("methods.wanda+leap-budget.budget_from", "wanda+leap-budget", "it must be a method with one budget"),
    ("methods.wanda+leap-budget.options", {"rounding": "as_released"}, "leave pattern and rounding at their defaults"),
    ("methods.leap.budget_from", "owl", "methods.leap.budget_from is 'owl'; only the modules"),
    ("methods.owl.budget_from", "leap", "methods.owl.budget_from is 'leap'; only the modules"),
    ("methods.owl.options.rounding", "as_released", "methods.owl.options.rounding"),
    # the grid of evidence
    ("scales.miniature.evidence.methods", ["wandb"], "scales.*.evidence.methods names the unknown method 'wandb'"),
    ("scales.miniature.evidence.methods", ["leap"], "names 'leap', which the grid evidence has already"),
    ("scales.miniature.evidence.once", ["leap-cosine"], "names 'leap-cosine', which the grid evidence has already"),
    ("scales.miniature.evidence.seeds", [0, 0], "[0, 0]"),
    (
        "scales.miniature.held_out",
        MISSING,
        "methods.leap.options.held_out_evaluations is 8; it needs held_out under the scale",
    ),
    ("methods.wanda+optima.selector", MISSING, "methods.wanda+optima.selector"),
    ("methods.wanda+optima.selector", "wandb", "wandb"),
    ("methods.wanda+optima.selector", 3, "3"),
    ("methods.wanda+optima.selector", "wanda+optima", "'wanda+optima'; it must be a one-shot method"),
    ("methods.wanda+optima.selector", "sparsegpt+optima", "'sparsegpt+optima'; it must be a one-shot method"),
    ("methods.wanda+optima.selector", "leap", "'leap'; it must be a one-shot method"),
    ("methods.wanda+optima.selector", "dense", "'dense'; it must be a one-shot method"),
    ("methods.admm.selector", "wanda", "methods.admm.selector"),
    ("methods.wanda.sparsities", [0.5], "does not run at every sparsity of wanda+optima"),
    ("methods.wanda+optima.options.damping", -0.1, "-0.1"),
    ("methods.wanda+optima.options.solver", "cg", "allowed are 'exact' or 'as_released'"),
    ("methods.wanda+optima.options.tolerance", 0, "a number above 0"),
    ("methods.wanda+optima.options.only_if_better", 1, "only_if_better"),
    # sources
    ("scales.miniature.models.tiny", {"source": "ftp", "id": "x"}, "ftp"),
    ("scales.miniature.models.tiny", {"source": "hub", "id": "a/b"}, "revision"),
    ("scales.miniature.models.tiny", {"source": "hub", "id": "no-owner", "revision": "main"}, "no-owner"),
    ("scales.miniature.models.tiny", {"source": "hub", "id": "a/b", "revision": "main", "token": "x"}, "token"),
    ("scales.miniature.data.calibration", {"source": "ftp", "id": "x"}, "ftp"),
    ("scales.miniature.data.calibration", {"source": "hub", "id": "a/b", "revision": "main"}, "files"),
    ("scales.paper.data.tasks.sets.piqa.files", {}, "files"),
    ("scales.paper.data.tasks.sets.piqa.id", "piqa", '"piqa"'),
    ("scales.paper.data.calibration.expect", {"documents": -1}, "-1"),
    ("scales.miniature.data.calibration", {"source": "bundled", "split": "valid"}, "valid"),
    ("scales.miniature.data.tasks", {"source": "bundle"}, "bundle"),
    # names that cannot be folders
    ("scales.miniature.models.org/tiny", {"source": "path", "path": "x"}, "org/tiny"),
    ("methods.leap/fast", LEAP, "leap/fast"),
    ("scales.paper.data.tasks.sets.piqa.files", {"../../x": "a.parquet"}, "../../x"),
    ("scales.paper.data.tasks.sets", {"../../x": {"id": "a/b", "revision": "main", "files": {"a": "b"}}}, "../../x"),
    ("scales.paper.cluster", {"partition": "../x"}, "../x"),
    ("methods.", LEAP, '""'),
    # missing keys
    ("scale", MISSING, "scale"),
    ("methods", MISSING, "methods"),
    ("methods.wanda.module", MISSING, "module"),
    ("scales.miniature.models", MISSING, "models"),
    ("scales.miniature.seeds", MISSING, "seeds"),
    ("scales.miniature.data.tasks", MISSING, "tasks"),
    ("scales.miniature.data.mask_training", MISSING, "mask_training"),
    ("scales.miniature.mask_training", MISSING, "mask_training"),
    ("methods.admm.options.training_sequences", 8001, "8000"),
    ("methods.leap.text", "letters", "['control', 'fact-free']"),
    ("methods.magnitude.text", "control", "the method reads no text"),
    ("methods.wanda-fact-free.text", "letters", "methods.wanda-fact-free.text is 'letters'"),
    ("scales.miniature.data.texts.control.mask_training", MISSING, "methods.leap-control.text is 'control'"),
    ("scales.miniature.data.texts.control.calibration.split", "test", "['calibration', 'mask_training']"),
    ("scales.miniature.data.texts.control.calibration.without", "facts", "'tested-facts'"),
    ("scales.miniature.data.texts.other/text", {}, "other/text"),
    ("methods.wanda+optima.selector", "admm+leap-tokens", "admm+leap-tokens"),
    ("scales.miniature.calibration.length", MISSING, "length"),
    ("scales.miniature.models.tiny", {"source": "bundled"}, "name"),
    ("scales.miniature.models.tiny", {"source": "path"}, "path"),
    ("scales.miniature.models.tiny", {"name": "x"}, "source"),
]


def change(config, where, value):
    *parents, last = where.split(".")
    for key in parents:
        config = config.setdefault(key, {})
    if value is MISSING:
        del config[last]
    else:
        config[last] = value


def test_a_method_may_run_where_the_grid_does_not(config):
    """Its start is made there too, as long as that one has no sparsities of its own."""
    config["methods"]["leap-layer"]["sparsities"] = [0.7]
    assert read_study(config).methods["leap-layer"].sparsities == ("0.7",)


@pytest.mark.parametrize(("where", "value", "word"), BAD, ids=[f"{where}={value!r:.40}" for where, value, _ in BAD])
def test_a_mistake_is_told_in_one_sentence_that_names_it(config, refused, where, value, word):
    change(config, where, value)
    with refused(word):
        read_study(config)


@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        ({"bits": "portable"}, "portable"),
        ({"bits": "native"}, "native"),
        ({"bits": MISSING}, "portable"),
        ({"bits": MISSING, "dtype": "bfloat16"}, "native"),
    ],
)
def test_bits_are_portable_in_float32_unless_the_scale_says_otherwise(config, settings, bits):
    for key, value in settings.items():
        change(config, f"scales.miniature.{key}", value)
    assert read_study(config).settings.kernels == bits


@pytest.mark.parametrize("scale", ["miniature", "paper"])
def test_the_real_config_loads_at_both_scales(config, scale):
    study = read_study(config | {"scale": scale})
    assert study.scale == scale
    assert len(study.models) == 5
    assert len(study.cells()) == 5 * (1 + 7 * 2 + 1)


def test_the_grid_holds_every_combination_once(config):
    study = read_study(config)
    cells = study.cells()
    pruned = {
        (method, s)
        for method in ("magnitude", "wanda", "sparsegpt", "thanos", "admm", "wanda+optima", "leap")
        for s in ("0.5", "0.6")
    }
    grid = {
        (model, method, s, 0) for model in study.models for method, s in pruned | {("dense", "0"), ("maskllm", "0.5")}
    }
    assert len(cells) == len(grid) == 80
    assert {(cell.model, cell.method, cell.sparsity, cell.seed) for cell in cells} == grid


def test_a_method_may_run_on_some_models_only(config):
    config["scales"]["miniature"]["only_models"] = {"wanda": ["qwen2.5-0.5b-mini"]}
    study = read_study(config)
    assert {cell.model for cell in study.cells() if cell.method == "wanda"} == {"qwen2.5-0.5b-mini"}
    assert {cell.model for cell in study.cells() if cell.method == "admm"} == set(study.models)


def test_the_cells_of_a_model_are_its_part_of_the_grid_and_seeds_multiply_it(config):
    config["scales"]["miniature"]["seeds"] = [0, 3]
    study = read_study(config)
    assert [cell for model in study.models for cell in study.cells(model)] == study.cells()
    cells = [cell.path.removeprefix("gemma3-1b-mini/") for cell in study.cells("gemma3-1b-mini")]
    assert cells[:5] == ["dense/0/0", "magnitude/0.5/0", "magnitude/0.6/0", "wanda/0.5/0", "wanda/0.5/3"]
    assert {"leap/0.6/0", "leap/0.6/3"} < set(cells), "nothing is drawn for Dense and magnitude"


def test_the_evidence_has_every_seed_and_further_sparsities_of_the_default_grid_and_further_methods(config):
    evidence = {"seeds": [4, 5], "curve": [0.4], "methods": ["leap-layer"], "once": ["owl"]}
    config["scales"]["miniature"]["evidence"] = evidence
    study = read_study(config)
    cells = {cell.path.removeprefix("gemma3-1b-mini/") for cell in study.cells("gemma3-1b-mini", "evidence")}
    assert {"dense/0/4", "magnitude/0.4/4", "magnitude/0.5/4", "wanda/0.4/4", "wanda/0.5/5", "leap/0.6/5"} < cells
    assert {"maskllm/0.5/5", "leap-layer/0.6/4", "leap-layer/0.6/5", "owl/0.5/4"} < cells
    assert not cells & {"dense/0/5", "magnitude/0.5/5", "wanda/0.4/5", "owl/0.5/5", "leap-layer/0.4/4", "maskllm/0.4/4"}
    assert study.seeds("evidence") == [4, 5]
    assert study.seeds() == [0]


def test_the_options_of_a_scale_win_over_those_of_the_method(config):
    options = read_study(config).methods["leap"].given
    assert options["steps"] == config["scales"]["miniature"]["options"]["leap"]["steps"]
    assert options["steps"] != config["methods"]["leap"]["options"]["steps"]
    assert options["beta2"] == config["methods"]["leap"]["options"]["beta2"]


def test_the_gpus_of_a_scale_win_over_those_of_the_method_and_fill_nodes(config, refused):
    config["methods"]["leap"]["gpus"] = 2
    config["scale"] = "paper"
    assert read_study(config).methods["leap"].gpus == 2
    config["scales"]["paper"]["gpus"] = {"leap": 8}
    method = read_study(config).methods["leap"]
    assert [method.gpus, *(method.nodes(per_node) for per_node in (None, 8, 4))] == [8, 1, 1, 2]
    config["scales"]["paper"]["cluster"]["gpus_per_node"] = 3
    with refused("scales.*.gpus.leap is 8; it must be a multiple of scales.*.cluster.gpus_per_node (3), or no more"):
        read_study(config)


def test_a_reconstruction_carries_the_merged_options_of_its_selector(config):
    config["scales"]["miniature"]["options"]["sparsegpt"] = {"block_size": 32}
    method = read_study(config).methods["sparsegpt+optima"]
    assert method.modules == ("optima", "sparsegpt")
    assert method.selector.given == config["methods"]["sparsegpt"]["options"] | {"block_size": 32}
    assert method.given == config["methods"]["wanda+optima"]["options"], "those of the line that it extends"


@pytest.mark.parametrize("value", [0.5, 0.123, 0.1234567, 0.9999999, 0.00001, 0])
def test_the_sparsity_of_a_cell_is_exactly_the_configs_and_fits_a_path(config, value):
    config["scales"]["miniature"]["sparsities"] = [value]
    sparsity = read_study(config).methods["wanda"].sparsities[0]
    assert Fraction(sparsity) == Fraction(str(value))
    assert re.fullmatch(r"[0-9.]+", sparsity)


def test_the_schema_for_editors_is_that_of_the_code(project):
    written = json.loads((project / SCHEMA).read_text(encoding="utf-8"))
    assert written == json_schema(), "`python tools/config_schema.py` writes it anew"


def test_the_schema_for_editors_accepts_every_file_of_the_real_config_and_refuses_a_typo(config, project):
    validator = jsonschema.Draft202012Validator(json_schema())
    for path in project_files(project):
        assert list(validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))) == [], path
    assert list(validator.iter_errors(config)) == []
    change(config, "methods.sparsegpt.options.blocksize", 64)
    assert [list(error.absolute_path) for error in validator.iter_errors(config)] == [["methods", "sparsegpt"]]


def test_every_file_of_the_config_names_its_schema(project):
    for path in project_files(project):
        up = "../" * (len(path.relative_to(project).parts) - 1)
        assert path.read_text(encoding="utf-8").splitlines()[0] == f"# yaml-language-server: $schema={up}{SCHEMA}"


def test_a_dry_run_reads_the_configuration_without_torch(project):
    """A dry run reads every method's declaration: a method imports torch, and what needs it, inside functions."""
    code = (
        "import sys; from leap_repro.pipeline import grid, jobs, tracking; from leap_repro.costs import plan, preflight"
    )
    code += "; print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("kind", ["models", "methods"])
def test_a_name_that_is_nowhere_is_answered_with_those_that_are(config, kind):
    """As of a target on Snakemake's command line."""
    names = getattr(read_study(config), kind)
    with pytest.raises(UserError, match=f"has no {kind[:-1]} 'nobody'; it has .*'{next(iter(names))}'"):
        names["nobody"]
    assert names.get("nobody") is None


@pytest.mark.parametrize("label", ["", "   ", "a|b", "a\nb", "x" * 201, "a\u2028b", "a\u202eb", "a\x00b", "a\tb"])
def test_a_label_is_one_line_that_can_be_printed(config, refused, label):
    config["methods"]["wanda"]["label"] = label
    with refused("methods.wanda.label", "it must be one line of 1 to 200 printable characters without |"):
        read_study(config)


def test_two_methods_of_a_grid_that_run_at_one_sparsity_have_two_labels(config, refused):
    config["methods"]["admm"]["label"] = "Wanda "
    with refused("methods.admm.label is 'Wanda '; wanda has it already in the same grid"):
        read_study(config)
    config["scales"]["miniature"]["only_models"] = {"admm": ["llama3.2-1b-mini"], "wanda": ["qwen2.5-0.5b-mini"]}
    read_study(config)


NONSENSE = [
    ("methods.leap.options.steps", 10**40, "to 1000000000"),
    ("methods.leap.options.batch_size", 10**10, "to 1000000000"),
    ("methods.leap.options.warmup_steps", 10**10, "to 1000000000"),
    ("methods.leap.options.tau_end", 1e-300, "from 1e-4 to 1e4"),
    ("methods.leap.options.kappa_end", 1e300, "from 1e-9 to 1e9"),
    ("methods.leap.options.learning_rate", 3000.0, "from 1e-12 to 10"),
    ("methods.elsa.options.learning_rate", 3000.0, "from 1e-12 to 10"),
    ("methods.leap.options.norm_weight", 1e300, "to 1e9"),
    ("scales.miniature.sparsities", [1e-300], "either 0 or at least 0.000001"),
    ("scales.miniature.calibration.length", 10**40, "from 2 to 1000000000"),
    ("scales.miniature.calibration.sequences", 10**40, "to 1000000000"),
    ("scales.miniature.evaluation.perplexity_windows", 10**40, "from 2 to 1000000000"),
    ("scales.open.data.calibration.expect", {"documents": 10**40}, "to 1000000000000000"),
]


@pytest.mark.parametrize(("where", "value", "words"), NONSENSE, ids=[where for where, *_ in NONSENSE])
def test_a_number_that_means_nothing_is_refused_with_what_is_allowed(config, refused, where, value, words):
    change(config, where, value)
    with refused(where, words):
        read_study(config)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("methods.wanda.label", "x" * 5000),
        ("methods.wanda.module", "x" * 5000),
        ("methods.wanda.options", "x" * 5000),
        ("methods.leap.options.steps", [1] * 5000),
        ("methods." + "x" * 5000, {"module": "wanda"}),
        ("methods.wanda." + "x" * 5000, 1),
        ("methods.wanda.options." + "x" * 5000, 1),
        ("scales.miniature.models.tiny", {"source": "x" * 5000}),
        ("scale", "x" * 5000),
        ("methods.leap.extends", "x" * 5000),
        ("methods.leap.warm_start", "x" * 5000),
        ("methods.wanda.variant_of", "x" * 5000),
        ("scales.miniature.methods", ["x" * 5000]),
        ("scales.miniature.data.calibration", {"source": "path", "path": "x" * 5000, "more": 1}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_refusal_shows_the_beginning_of_a_long_value(config, where, value):
    change(config, where, value)
    with pytest.raises(UserError) as caught:
        read_study(config)
    assert "x" * (MOST_SHOWN + 1) not in str(caught.value)
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("revision", ["a/../b", "a//b", "../a", "a/.b", "a/"])
def test_a_revision_is_no_way_out_of_a_folder(config, refused, revision):
    config["scales"]["paper"]["models"]["qwen2.5-0.5b"]["revision"] = revision
    with refused("revision", "it must be a commit of 40 digits, a branch or a tag"):
        read_study(config | {"scale": "paper"})
