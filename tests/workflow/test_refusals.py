"""A wrong configuration stops Snakemake with one sentence before any job. More cases: tests/unit/test_bad_input.py."""

import os
import subprocess

import pytest
from scratch import edit, snakemake, start_again

# what is replaced in the tiny configuration, by what, and the sentence
WRONG = [
    (
        "sparsities: [0.5]",
        "sparsities: [1.5]",
        "scales.tiny.sparsities.0 is 1.5; a sparsity must be a number in [0, 1)",
    ),
    ("seeds: [0]", "seeds: [0]\n    seeds: [1]", "the key scales.tiny.seeds is on lines"),
    (
        "path: data/tasks",
        "path: data/task",
        "tasks.path is 'data/task'; it must be a folder with <set>/<split>.parquet files",
    ),
    ("[32, 64]", "[32, 512]", "evaluation.perplexity_lengths is 512; scales.tiny.models.mini has 256 positions"),
    ("seeds: [0]", "seeds: [0", "config.yaml, line 39, is not YAML: did not find expected"),
    ("threads: 1", "threads: 1\n    colour: red", "scales.tiny has the unknown key 'colour'; allowed are ["),
]


@pytest.fixture
def fresh(finished, tmp_path):
    return start_again(finished, tmp_path)


def refusal(folder, *arguments):
    """What Snakemake prints when it refuses to start."""
    output = snakemake(folder, *arguments, check=False)
    assert "Building DAG" not in output
    return output


@pytest.mark.parametrize(("old", "new", "sentence"), WRONG)
def test_a_wrong_configuration_stops_before_any_job(fresh, old, new, sentence):
    edit(fresh, "config.yaml", old, new)
    assert sentence in refusal(fresh)


CODE = """\
__use_yte__: true
__definitions__:
  - open("ran", "w").close()
"""


def test_code_in_the_configuration_does_not_run(fresh):
    """Snakemake would run it in a dry run, too."""
    path = fresh / "config.yaml"
    path.write_text(CODE + path.read_text())
    assert "the key __use_yte__ makes Snakemake run Python code" in refusal(fresh, "-n")
    assert not (fresh / "ran").exists()


def test_code_in_a_file_laid_over_it_is_told(fresh):
    """Snakemake runs it before anything of ours: docs/trust.md says that such a file is code."""
    (fresh / "more.yaml").write_text(CODE)
    assert "more.yaml, line 1: the key __use_yte__" in refusal(fresh, "-n", "--configfile", "more.yaml")


def test_results_that_may_not_be_written_stop_before_any_job(fresh):
    """A read-only file system, because root may write everywhere else."""
    (fresh / "results").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(fresh / "results")]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a read-only file system cannot be mounted here")
    try:
        assert "results cannot be written: no write permission for" in refusal(fresh)
    finally:
        subprocess.run(["umount", str(fresh / "results")], check=True)
