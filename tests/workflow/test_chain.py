"""What Snakemake forgot or never knew is noticed when results are collected: by the workflow itself, end to end."""

import shutil

import pytest
from scratch import edit, planned, snakemake

GOAL = "results/tiny/aggregate/mini/manifest.json"
WANDA, LEAP = "mini/wanda/0.5/0", "mini/leap/0.5/0"


def collect_again(checkout):
    """The last line that collecting says."""
    shutil.rmtree(checkout / "results/tiny/aggregate")
    snakemake(checkout, GOAL, check=False)
    return (checkout / "logs/tiny/aggregate/mini.log").read_text().strip().splitlines()[-1]


def exchange(one, other):
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def test_results_of_four_steps_are_not_those_of_a_configuration_of_two(checkout):
    """Snakemake would know, had its memory not been lost."""
    edit(checkout, "config.yaml", "options: {steps: 4, batch_size", "options: {steps: 2, batch_size")
    assert planned(checkout, GOAL)["prune"] == 1
    shutil.rmtree(checkout / ".snakemake/metadata")
    said = collect_again(checkout)
    prune = f"results/tiny/prune/{LEAP}"
    made = f"{prune} was made with options.steps 4, but the workflow requests 2"
    assert said == f"error: cell {LEAP}: {made}: delete {prune} and run again"
    shutil.rmtree(checkout / prune)
    snakemake(checkout, GOAL)


@pytest.mark.parametrize("stages", [["harden", "evaluate"], ["prune", "harden", "evaluate"]])
def test_folders_of_two_methods_exchanged_are_not_collected(checkout, stages):
    """Their files have the times that Snakemake expects, and each folder is whole by itself."""
    for stage in stages:
        exchange(checkout / f"results/tiny/{stage}/{WANDA}", checkout / f"results/tiny/{stage}/mini/admm/0.5/0")
    shutil.rmtree(checkout / ".snakemake/metadata")
    said = collect_again(checkout)
    assert said.startswith(f"error: cell {WANDA}: results/tiny/{stages[0]}/{WANDA} ")
    assert said.endswith(f"delete results/tiny/{stages[0]}/{WANDA} and run again")
