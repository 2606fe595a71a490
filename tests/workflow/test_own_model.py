"""The one command, on the miniature, without a network: a checkpoint that loads, a card, and nothing done twice."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from scratch import REPOSITORY

from leap_repro.export.load import load_pruned
from leap_repro.models.prunable import prunable_linears


def prune(folder, *arguments):
    """(its words, exit status) of the command in `folder`, with this checkout's package."""
    done = subprocess.run(
        [sys.executable, "-m", "leap_repro", "prune", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY / "src"), "HOME": str(folder)},
    )
    return done.stdout + done.stderr, done.returncode


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    text = "\n\n".join(f"Page {number} says that {number} is a number, as others are." * 30 for number in range(40))
    (folder / "text.txt").write_text(text)
    arguments = ["llama3.2-1b-mini", "--sparsity", "0.6", "--text", "text.txt", "--length", "64", "--sequences", "16"]
    words, status = prune(folder, *arguments, "--format", "packed", "--output", "out")
    assert status == 0, words
    return folder, arguments, words


def test_it_says_what_it_did(pruned):
    folder, _, words = pruned
    for part in ("78,636 of 196,608 prunable (40.00 %)", "of all 279,104", "perplexity@128", "before", "after"):
        assert part in words
    for place in (folder / "out", folder / "leap-repro-run"):
        assert str(place) in words


def test_the_checkpoint_loads_and_is_as_sparse_as_asked(pruned):
    folder, _, _ = pruned
    linears = prunable_linears(load_pruned(folder / "out"))
    zeros = [int((linear.weight == 0).sum()) / linear.weight.numel() for linear in linears]
    assert all(abs(share - 0.6) < 1e-3 for share in zeros)


def test_the_card_says_how_it_was_made(pruned):
    folder, _, _ = pruned
    _, front, body = (folder / "out/README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "mit"
    for part in (
        "wanda",
        "16 sequences of 64 tokens of text.txt",
        "| down_proj | 4 |",
        "perplexity@128 | 1.8",
        "packed:",
    ):
        assert part in body, part
    assert "leap-repro prune llama3.2-1b-mini --method wanda --sparsity 0.6" in body
    assert str(folder) not in body


def test_a_second_call_computes_nothing_anew(pruned):
    folder, arguments, _ = pruned
    words, _ = prune(folder, *arguments, "--output", "again", "--dry-run")
    assert "all of it is done already" in words
    words, status = prune(folder, *arguments, "--output", "out")
    assert (status, "not empty" in words) == (2, True)
    words, status = prune(folder, *arguments, "--output", "again")
    assert status == 0
    assert (folder / "again/model.safetensors").is_file()


def test_a_packed_export_of_8_bits_writes_text(pruned):
    folder, arguments, _ = pruned
    words, status = prune(folder, *arguments, "--format", "packed", "--values", "int8", "--output", "rounded")
    assert status == 0, words
    assert "rounded to int8 in the export" in words
    card = (folder / "rounded/README.md").read_text()
    assert "--values int8" in card
    assert "Measured before the kept values were rounded to int8." in card
    sizes = [(folder / name / "sparse-model.safetensors").stat().st_size for name in ("out", "rounded")]
    assert 0 < sizes[0] - sizes[1] < 78_636
    command = [sys.executable, "-m", "leap_repro", "generate", "rounded", "--prompt", "The", "--max-new-tokens", "4"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY / "src"), "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip()
    assert "run packed" in done.stderr


def test_what_other_options_made_is_not_exported_once_snakemakes_memory_is_lost(pruned):
    folder, arguments, _ = pruned
    metadata, aside = (folder / "leap-repro-run/.snakemake" / name for name in ("metadata", "aside"))
    metadata.rename(aside)
    shorter = [*arguments[: arguments.index("--length")], "--length", "32", "--sequences", "16"]
    words, status = prune(folder, *shorter, "--output", "shorter")
    metadata.exists() and shutil.rmtree(metadata)
    aside.rename(metadata)
    assert status == 2
    assert "was made with length 64, but the workflow requests 32: delete" in words.strip().splitlines()[-1]
    assert not (folder / "shorter").exists()


def test_a_job_that_fails_is_told_in_its_words(pruned):
    folder, _, _ = pruned
    (folder / "short.txt").write_text("too short")
    words, status = prune(folder, "llama3.2-1b-mini", "--text", "short.txt", "--evaluate", "none", "--output", "none")
    assert status == 2
    assert words.strip().splitlines()[-1].startswith("error: ")
    assert "snakemake.log" in words
    assert not (folder / "none").exists()


def test_masks_of_others_become_the_same_cell(pruned):
    """Wanda's own masks, published as MaskLLM's authors publish theirs."""
    folder, _, _ = pruned
    cells = folder / "leap-repro-run/results/own/harden/llama3.2-1b-mini"
    packed = load_file(cells / "wanda/0.6/0/payload/mask.safetensors")
    np.savez_compressed(folder / "masks.npz", **{f"{name}.mask": bits.numpy() for name, bits in packed.items()})
    arguments = ["llama3.2-1b-mini", "--sparsity", "0.6", "--evaluate", "none", "--masks", "masks.npz"]
    words, status = prune(folder, *arguments, "--output", "theirs")
    assert status == 0, words
    theirs = load_file(cells / "imported/0.6/0/payload/mask.safetensors")
    assert all(torch.equal(theirs[name], bits) for name, bits in packed.items())
