"""What `leap-repro prune` is asked for and cannot do is told in one sentence, before anything is written."""

import subprocess
import sys

import pytest

from leap_repro.export.index import INDEX_FILE
from leap_repro.models.checkpoint import COMPRESSED
from leap_repro.own_model.__main__ import main, parser
from leap_repro.own_model.asked import check_asked, check_method
from leap_repro.own_model.workflow import checkout

BUNDLED = "llama3.2-1b-mini"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with things that are no model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "no-config").mkdir()
    (tmp_path / "no-config/model.safetensors").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "packed").mkdir()
    for name in ("sparse.json", "config.json"):
        (tmp_path / "packed" / name).write_text("{}")
    (tmp_path / "packed/sparse-model.safetensors").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").touch()
    return tmp_path


def asked(*arguments):
    return parser().parse_args(list(map(str, arguments)))


CASES = [
    ([BUNDLED], ["--output is not given"]),
    (["--output", "out"], ["MODEL is not given"]),
    ([BUNDLED, "--output", "file"], ["--output file cannot be made", "is a file"]),
    ([BUNDLED, "--output", "file/out"], ["--output file/out cannot be made", "is a file"]),
    ([BUNDLED, "--output", "link"], ["--output link cannot be made", "is a link to nothing"]),
    ([BUNDLED, "--output", "full"], ["--output full is not empty"]),
    ([BUNDLED, "--output", "~nosuchuser/out"], ["--output is '~nosuchuser/out'", "no such home folder"]),
    ([BUNDLED, "--output", "leap-repro-run"], ["--output leap-repro-run holds the run folder"]),
    ([BUNDLED, "--output", "a", "--run-folder", "a/b/run"], ["--output a holds the run folder"]),
    ([BUNDLED, "--output", "out", "--run-folder", "file"], ["--run-folder", "is a file"]),
    ([BUNDLED, "--output", "out", "--run-folder", "link/run"], ["--run-folder", "is a link to nothing"]),
    ([BUNDLED, "--output", "out", "--run-folder", "~nosuchuser"], ["--run-folder is '~nosuchuser'"]),
    ([BUNDLED, "--output", "out", "--text", "~nosuchuser/a.txt"], ["--text is '~nosuchuser/a.txt'"]),
    ([BUNDLED, "--output", "out", "--sparsity", "nan"], ["--sparsity is nan", "[0, 1)"]),
    ([BUNDLED, "--output", "out", "--sparsity", "1"], ["--sparsity is 1;", "[0, 1)"]),
    ([BUNDLED, "--output", "out", "--sparsity", "50"], ["--sparsity is 50;", "[0, 1): 50 % is 0.5"]),
    ([BUNDLED, "--output", "out", "--cores", "0"], ["--cores is 0"]),
    ([BUNDLED, "--output", "out", "--values", "int8"], ["--values is int8", "--format packed", "dense"]),
    ([BUNDLED, "--output", "out", "--method", "../../../x"], ["--method is '../../../x'", "'wanda'"]),
    (
        [BUNDLED, "--output", "out", "--masks", "packed"],
        ["--masks: options.path", "'packed', a compressed export", "leap-repro unpack"],
    ),
    ([BUNDLED, "--output", "out", "--masks", "file"], ["--masks: options.path", "must be an .npz file"]),
    (["packed", "--output", "out"], ["packed is a compressed export", "leap-repro unpack"]),
    (["empty", "--output", "out"], ["empty must hold config.json"]),
    (["no-config", "--output", "out"], ["no-config must hold config.json"]),
    (["file", "--output", "out"], ["MODEL is 'file', a file", "config.json"]),
    (["no-such", "--output", "out"], ["MODEL is 'no-such'", "folder that exists"]),
    (["./no/such", "--output", "out"], ["MODEL is './no/such'", "folder that exists"]),
    (["~nosuchuser/model", "--output", "out"], ["MODEL is '~nosuchuser/model'", "no such home folder"]),
    (["n" * 300, "--output", "out"], ["MODEL is 'nnnn", "folder that exists"]),
    (["o/" + "n" * 300, "--output", "out"], ["MODEL is 'o/nn", "folder that exists"]),
]


@pytest.mark.parametrize(("arguments", "words"), CASES, ids=[" ".join(words) for _, words in CASES])
def test_it_is_told_before_anything_is_written(here, refused, arguments, words):
    before = sorted(path.name for path in here.rglob("*"))
    with refused(*words):
        main(asked(*arguments))
    left = sorted(path.name for path in here.rglob("*"))
    assert [name for name in left if name not in ("leap-repro-run", ".leap-repro.lock")] == before
    assert (here / "file").read_text() == "precious"


def test_a_refusal_shows_the_beginning_of_a_long_value(here):
    with pytest.raises(ValueError, match="MODEL is") as caught:
        main(asked("n" * 5000, "--output", "out"))
    assert len(str(caught.value)) < 600


def test_a_home_is_put_in_its_place(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    arguments = asked(BUNDLED, "--output", "~/out", "--run-folder", "~/run", "--text", "~/a.txt")
    check_asked(arguments, checkout())
    assert (arguments.output, arguments.run_folder, arguments.text) == (here / "out", here / "run", here / "a.txt")


def test_a_group_of_methods_is_none(config, refused):
    with refused("--method is 'ablations'"):
        check_method("ablations", config)
    check_method("wanda", config)


def test_the_mark_of_a_compressed_export_is_the_exports():
    assert COMPRESSED == INDEX_FILE


def test_a_mistake_ends_the_command_with_one_line(here):
    command = [sys.executable, "-m", "leap_repro", "prune", BUNDLED, "--output", "file"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --output file cannot be made")
    assert done.stderr.count("\n") == 1
