"""The one command's grid is an ordinary one: checked like any other, cut to the model, its data where they are told."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import leap_repro
from leap_repro.__main__ import COMMANDS
from leap_repro.export.forms import DENSE, FORMS, QUANTISED
from leap_repro.models.load import DTYPES
from leap_repro.models.sources import meant_by
from leap_repro.own_model import overlay as own_overlay
from leap_repro.own_model.__main__ import (
    FORMATS,
    PRECISIONS,
    VALUES,
    in_words,
    licence,
    only_cell,
    parser,
    refuse_form,
    said,
    targets,
)
from leap_repro.own_model.overlay import SCALE, grid_name, overlay, refined
from leap_repro.own_model.workflow import checkout, failure
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config


def study_of(config, tmp_path, *arguments, on_gpu=False):
    """The study of the command's arguments, through a file as the command has it."""
    asked = parser().parse_args(["--output", "out", *map(str, arguments)])
    (tmp_path / "overlay.yaml").write_text(yaml.safe_dump(overlay(asked, config, on_gpu)))
    return read_study(read_config([tmp_path / "overlay.yaml"], checkout()))


@pytest.fixture
def model(tmp_path):
    """A folder whose model has 64 positions."""
    (tmp_path / "my model").mkdir()
    (tmp_path / "my model/config.json").write_text('{"max_position_embeddings": 64}')
    return tmp_path / "my model"


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "admm", "wanda+optima", "leap", "maskllm"])
@pytest.mark.parametrize("where", ["llama3.2-1b-mini", "owner/name"])
def test_every_method_is_a_study_of_its_cell_and_the_dense_one(config, tmp_path, where, method):
    study = study_of(config, tmp_path, where, "--method", method)
    assert [(cell.method, cell.sparsity) for cell in study.cells()] == [("dense", "0"), (method, "0.5")]
    assert only_cell(study, method).path.endswith(f"/{method}/0.5/0")


def test_a_variant_has_the_options_that_it_has_at_the_scale_that_the_grid_is_like(config, tmp_path):
    study = study_of(config, tmp_path, "llama3.2-1b-mini", "--method", "leap-half-batch", "--sparsity", "0.6")
    options = study.methods["leap-half-batch"].options
    assert (options.batch_size, options.micro_batch_size, options.steps) == (4, 4, 500)
    assert not options.held_out_evaluations, "which would need held-out text"


def test_a_folder_is_cut_to_its_positions(config, tmp_path, model):
    settings = study_of(config, tmp_path, model, "--length", "100").settings
    assert settings.calibration.length == settings.mask_training.length == 64
    assert settings.evaluation.perplexity_lengths == [64]
    assert list(study_of(config, tmp_path, model).models) == ["my-model"]
    assert (settings.dtype, settings.kernels) == ("float32", "native")


def test_a_gpu_is_used_where_one_is(config, tmp_path, model):
    settings = study_of(config, tmp_path, model, on_gpu=True).settings
    assert (settings.dtype, settings.cluster.gpus) == ("bfloat16", 1)
    bundled = study_of(config, tmp_path, "llama3.2-1b-mini", on_gpu=True).settings
    assert (bundled.dtype, bundled.cluster.gpus, bundled.kernels) == ("float32", 0, "portable")


def test_data_are_where_they_are_told(config, tmp_path, model):
    (tmp_path / "data").mkdir()
    text = tmp_path / "text.txt"
    data = study_of(config, tmp_path, model, "--data", tmp_path / "data", "--text", text).data
    assert data["calibration"] == data["mask_training"] == {"source": "path", "path": str(text)}
    assert data["tasks"]["path"] == str(tmp_path / "data/tasks")
    assert study_of(config, tmp_path, model).data["calibration"]["id"] == "allenai/c4"
    assert study_of(config, tmp_path, model, "--data", "bundled").data["tasks"] == {"source": "bundled"}


def test_a_sample_or_all_is_asked(config, tmp_path, model):
    quick = study_of(config, tmp_path, model).settings.evaluation
    full = study_of(config, tmp_path, model, "--evaluate", "full").settings.evaluation
    assert quick.questions
    assert quick.perplexity_windows
    assert full.questions is None
    assert full.perplexity_windows is None
    cell = only_cell(study_of(config, tmp_path, model), "wanda")
    assert len(targets(cell, "quick")) == 3
    assert targets(cell, "none") == [f"results/{SCALE}/harden/my-model/wanda/0.5/0/manifest.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-folder"], ["no-such-folder", "folder that exists", "llama3.2-1b-mini"]),
        (["llama3.2-1b-mini", "--data", "no-such"], ["--data", "no-such"]),
        (["llama3.2-1b-mini", "--method", "nobody"], ["nobody", "wanda"]),
        (["llama3.2-1b-mini", "--sparsity", "1.5"], ["1.5", "sparsity"]),
        (["llama3.2-1b-mini", "--seed", "-1"], ["-1", "seed"]),
    ],
)
def test_what_is_not_there_is_said_at_once(config, tmp_path, refused, arguments, words):
    with refused(*words):
        study_of(config, tmp_path, *arguments)


@pytest.mark.parametrize(("method", "sparsity"), [("dense", 0.5), ("wanda-2-4", 0.6)])
def test_a_method_that_does_not_run_there_is_refused(config, tmp_path, refused, method, sparsity):
    study = study_of(config, tmp_path, "llama3.2-1b-mini", "--method", method, "--sparsity", sparsity)
    with refused("--method", method, str(sparsity)):
        only_cell(study, method)


def test_a_two_four_export_of_other_masks_is_refused_before_the_run(config, tmp_path, refused):
    for method, fits in (("wanda", False), ("wanda+optima", False), ("wanda-2-4", True), ("maskllm", True)):
        study = study_of(config, tmp_path, "llama3.2-1b-mini", "--method", method)
        refuse_form(study, method, "packed")
        if fits:
            refuse_form(study, method, "2:4")
        else:
            with refused("--format 2:4", method, "unstructured", "wanda-2-4"):
                refuse_form(study, method, "2:4")


def test_the_command_on_the_card_says_what_decides_and_no_place(tmp_path, model):
    (tmp_path / "text.txt").touch()
    places = ["--output", str(tmp_path / "out"), "--run-folder", str(tmp_path), "--text", str(tmp_path / "text.txt")]
    words = said(parser().parse_args([str(model), *places, "--length", "64", "--cores", "3"]))
    assert words == "leap-repro prune 'my model' --method wanda --sparsity 0.5 --text text.txt --length 64"
    assert said(parser().parse_args(["a/b", "--output", "o"])) == "leap-repro prune a/b --method wanda --sparsity 0.5"


def test_names_and_licences(tmp_path, model):
    assert grid_name(meant_by("owner/a.name", "main")) == "owner-a.name"
    for folder, name in (("main", "main-model"), ("{x}&$HOME", "x-HOME"), ("_ _", "model"), ("n" * 200, "n" * 80)):
        assert grid_name({"source": "path", "path": f"/somewhere/{folder}"}) == name
    assert licence(meant_by(str(model), "main"), tmp_path) is None
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\nA card.\n")
    assert licence(meant_by(str(model), "main"), tmp_path) == "apache-2.0"
    (model / "README.md").write_text("---\n: [\n---\n")
    assert licence(meant_by(str(model), "main"), tmp_path) is None


def test_a_package_without_its_workflow_says_so(monkeypatch, tmp_path, refused):
    assert (checkout() / "workflow/Snakefile").is_file()
    monkeypatch.setattr(leap_repro, "__file__", str(tmp_path / "site/lib/leap_repro/__init__.py"))
    with refused("pip install -e"):
        checkout()


def test_a_failure_is_told_in_the_words_of_the_job():
    text = "Error in rule prune:\n    Logfile x:\n====\nerror: the sentence\n====\nWorkflowError:\nAt least one job\n"
    assert failure(text) == "the sentence"
    assert failure("WorkflowError in file s, line 3:\nconfig: it is so\n") == "config: it is so"
    assert failure("") == "snakemake failed without a word"


def test_choices_are_those_of_the_export():
    assert (DENSE, *FORMS) == FORMATS
    assert tuple(DTYPES) == PRECISIONS
    assert tuple(QUANTISED) == VALUES


def test_help_is_there_at_once():
    """No torch, transformers or pyarrow for --help."""
    heavy = "{'torch', 'transformers', 'pyarrow'}"
    code = f"import sys; from leap_repro.own_model.__main__ import parser; parser(); print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_every_command_is_a_module_with_a_parser(capsys):
    for module, _ in COMMANDS.values():
        path = Path(leap_repro.__file__).parent / Path(*module.split(".")[1:])
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    done = subprocess.run([sys.executable, "-m", "leap_repro", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert all(name in done.stderr for name in COMMANDS)


def test_a_training_on_a_text_of_ones_own_reads_it_once(config, tmp_path):
    """8,000 sequences are the miniature's; 500 steps of 8 read 4,000."""
    given = ["llama3.2-1b-mini", "--method", "leap", "--text", "my.txt"]
    for more, needed, length in (([], 4000, 128), (["--steps", "30", "--length", "64"], 240, 64)):
        asked = parser().parse_args(["--output", "out", *given, *more])
        written, study = overlay(asked, config, False), study_of(config, tmp_path, *given, *more)
        found = refined(asked, written, study, False)
        assert found["scales"][SCALE]["mask_training"] == {"sequences": needed, "length": length}
        assert refined(asked, found, study, False) == found
    asked = parser().parse_args(["--output", "out", "llama3.2-1b-mini", "--text", "my.txt"])
    written = overlay(asked, config, False)
    assert refined(asked, written, study_of(config, tmp_path, "llama3.2-1b-mini"), False) == written


@pytest.mark.parametrize(
    ("method", "more", "on_gpu", "dtype"),
    [
        ("leap", [], False, "bfloat16"),
        ("leap", ["--dtype", "float32"], False, "float32"),
        ("admm", [], False, "float32"),
        ("leap", [], True, "bfloat16"),
    ],
)
def test_a_training_on_a_processor_with_bfloat16_is_in_it(
    config, tmp_path, model, monkeypatch, method, more, on_gpu, dtype
):
    given = [str(model), "--method", method, *more]
    asked = parser().parse_args(["--output", "out", *given])
    written, study = overlay(asked, config, on_gpu), study_of(config, tmp_path, *given, on_gpu=on_gpu)
    for has_it in (True, False):
        monkeypatch.setattr(own_overlay, "multiplies_bfloat16", lambda has_it=has_it: has_it)
        expected = dtype if has_it or on_gpu else "float32"
        assert refined(asked, written, study, on_gpu)["scales"][SCALE]["dtype"] == expected


def test_without_a_gpu_leap_has_the_schedule_for_few_steps(config, tmp_path, model):
    short = study_of(config, tmp_path, model, "--method", "leap").methods["leap"].options
    assert (short.steps, short.tau_start, short.kappa_start) == (244, 0.5, 100.0)
    whole = study_of(config, tmp_path, model, "--method", "leap", on_gpu=True).methods["leap"].options
    assert (whole.tau_start, whole.kappa_start) == (4.0, 25.0)


def test_a_training_says_its_tokens_and_minutes(config, tmp_path, model):
    study = study_of(config, tmp_path, model, "--method", "leap")
    said = in_words(study, only_cell(study, "leap"), tmp_path)
    assert said.startswith("leap trains on 62,464 tokens in 244 steps"), "of 4 x 64, the model's positions"
    study = study_of(config, tmp_path, model, "--method", "wanda")
    assert in_words(study, only_cell(study, "wanda"), tmp_path) is None


def test_without_a_text_of_ones_own_the_streams_are_the_scales(config, tmp_path):
    settings = study_of(config, tmp_path, "llama3.2-1b-mini", "--method", "leap", "--length", "64").settings
    assert (settings.mask_training.sequences, settings.mask_training.length) == (8000, 128)


def test_steps_are_for_methods_that_train(config, tmp_path, refused):
    assert (
        study_of(config, tmp_path, "llama3.2-1b-mini", "--method", "leap", "--steps", "7").methods["leap"].options.steps
        == 7
    )
    with refused("steps"):
        study_of(config, tmp_path, "llama3.2-1b-mini", "--method", "wanda", "--steps", "7")
