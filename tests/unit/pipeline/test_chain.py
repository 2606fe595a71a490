"""No row is collected whose way, from the model to the evaluation, is not the one that is asked for."""

import copy
import itertools
import json
import shutil

import pytest

from leap_repro.errors import UserError
from leap_repro.pipeline.chain import Chain, links_to
from leap_repro.store.artifacts import PROVENANCE, Artifact, writing
from leap_repro.store.sealed import read_sealed, write_sealed

ARITHMETIC = {"dtype": "float32", "bits": "portable"}


def method(name, inputs, options, **more):
    parameters = {"module": name, "options": options, "selector": None} | ARITHMETIC
    line = {"code": f"prune-{name}", "parameters": parameters, "inputs": inputs}
    return line | {"rule": "exact", "pruned": name} | more


TOKENS = {"tokens": "calibration/{model}/calibration/{seed}"}
TRAINED = {
    "tokens": "calibration/{model}/mask_training/{seed}",
    "warm_start": "harden/{model}/wanda/{sparsity}/{seed}",
}
ASKED = {
    "code": {name: name for name in ("models", "data", "calibration", "harden", "evaluate")},
    "model": {"source": "bundled", "name": "mini"},
    "data": {
        role: {"source": "path", "path": role} for role in ("calibration", "mask_training", "perplexity", "tasks")
    },
    "shards": {
        "calibration": {"text": "data/calibration", "parameters": {"recipe": "windows", "length": 32}},
        "mask_training": {"text": "data/mask_training", "parameters": {"recipe": "packed", "length": 32}},
    },
    "methods": {
        "wanda": method("wanda", TOKENS, {}),
        "leap": method("leap", TRAINED, {"steps": 40}),
        "leap-threshold": method("leap", TRAINED, {"steps": 40}, rule="threshold"),
    },
    "scoring": {"lengths": [32], "windows": None, "questions": None, "batch_size": 8} | ARITHMETIC,
}
WANDA, LEAP, THRESHOLD = (f"mini/{name}/0.5/0" for name in ("wanda", "leap", "leap-threshold"))


def make(root, cells, asked=ASKED, machine=None):
    """The results of the cells, made as asked and in order, those that are there already left."""
    for link in itertools.chain.from_iterable(links_to(cell, asked) for cell in cells):
        folder = root / link.folder
        if folder.exists():
            continue
        inputs = {name: Artifact.read(root / place).manifest_sha256 for name, place in link.inputs.items()}
        origin = {"code": link.code, "parameters": link.parameters, "inputs": inputs}
        with writing(folder, origin | {"machine": machine or {}}) as (payload, facts):
            (payload / "result").write_text(json.dumps(origin, sort_keys=True))
            facts |= {"cell": link.cell} if link.cell else {}


@pytest.fixture
def root(tmp_path):
    make(tmp_path, [WANDA, LEAP, THRESHOLD])
    return tmp_path


def check(root, *cells, asked=ASKED):
    chain = Chain(root, asked)
    for cell in cells or (WANDA, LEAP, THRESHOLD):
        chain.check(cell)


def test_what_was_made_as_asked_is_taken(root):
    check(root)


def test_a_line_that_hardens_anothers_logits_is_walked_to_that_pruning(root):
    folders = [link.folder for link in links_to(THRESHOLD, ASKED)]
    assert f"prune/{LEAP}" in folders
    assert f"prune/{THRESHOLD}" not in folders
    assert folders.index(f"harden/{WANDA}") < folders.index(f"prune/{LEAP}")


def exchange(one, other):
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize(
    "stages", [["evaluate"], ["harden"], ["harden", "evaluate"], ["prune"], ["prune", "harden", "evaluate"]]
)
def test_folders_of_two_methods_exchanged_are_refused(root, refused, stages):
    for stage in stages:
        exchange(root / stage / WANDA, root / stage / LEAP)
    with refused(f"cell {WANDA}: ", f"delete {root / ('prune' if 'prune' in stages else stages[0])}/", "run again"):
        check(root)


LINKS = {link.folder: link for link in links_to(LEAP, ASKED)}


@pytest.mark.parametrize("folder", LINKS)
def test_other_code_is_refused_at_every_link(root, refused, folder):
    """Calibration's too."""
    path = root / folder / PROVENANCE
    write_sealed(path, read_sealed(path) | {"code": "edited"})
    with refused(f"cell {LEAP}: {root / folder} was made by code edited", LINKS[folder].code, "delete"):
        check(root, LEAP)


@pytest.mark.parametrize(("folder", "name"), [(f, name) for f, link in LINKS.items() for name in link.inputs])
def test_another_input_is_refused_at_every_link(root, refused, folder, name):
    """Its manifest is another one now, as after a source that was fetched anew."""
    path = root / folder / PROVENANCE
    made = read_sealed(path)
    made["inputs"][name] = "0" * 64
    write_sealed(path, made)
    with refused(f"cell {LEAP}: {root / folder} was made from another {name} than {root}", "delete"):
        check(root, LEAP)


@pytest.mark.parametrize(("folder", "name"), [(f, name) for f, link in LINKS.items() for name in link.parameters])
def test_another_parameter_is_refused_at_every_link(root, refused, folder, name):
    path = root / folder / PROVENANCE
    made = read_sealed(path)
    made["parameters"][name] = "another"
    write_sealed(path, made)
    with refused(f"cell {LEAP}: {root / folder} was made with {name} 'another', but the workflow requests"):
        check(root, LEAP)


def test_an_input_and_a_parameter_that_nobody_asks_for_are_refused(root, refused):
    path = root / "prune" / WANDA / PROVENANCE
    made = read_sealed(path)
    write_sealed(path, made | {"inputs": made["inputs"] | {"parent": "0" * 64}})
    with refused("was made from a parent, which the workflow does not request"):
        check(root, WANDA)
    write_sealed(path, made | {"parameters": made["parameters"] | {"options": {"damping": 0.1}}})
    with refused("was made with options.damping 0.1, but the workflow requests None"):
        check(root, WANDA)


def test_forty_steps_under_a_configuration_of_twenty_are_refused(root, refused):
    asked = copy.deepcopy(ASKED)
    asked["methods"]["leap"]["parameters"]["options"]["steps"] = 20
    check(root, WANDA, asked=asked)
    with refused(f"cell {LEAP}: {root / 'prune' / LEAP} was made with options.steps 40, but the workflow requests 20"):
        check(root, LEAP, asked=asked)


def test_a_mask_is_checked_without_an_evaluation(root, refused):
    shutil.rmtree(root / "evaluate")
    Chain(root, ASKED).check_mask(LEAP)
    asked = copy.deepcopy(ASKED)
    asked["methods"]["leap"]["parameters"]["options"]["steps"] = 20
    with refused("options.steps 40"):
        Chain(root, asked).check_mask(LEAP)


def test_a_start_that_was_made_anew_is_refused(root, refused):
    """The cell that a training starts from is no row of its own grid, perhaps."""
    with writing(root / "harden" / WANDA, Artifact.read(root / "harden" / WANDA).provenance()) as (_, facts):
        facts |= {"cell": WANDA, "kept": 1}
    with refused(
        f"cell {LEAP}: {root / 'prune' / LEAP} was made from another warm_start than {root / 'harden' / WANDA}"
    ):
        check(root, LEAP)


@pytest.mark.parametrize("machine", [{"gpu": "H200"}, {}])
def test_portable_bits_are_what_a_machine_can_promise(tmp_path, machine):
    native = copy.deepcopy(ASKED)
    for parameters in (native["scoring"], *(line["parameters"] for line in native["methods"].values())):
        parameters["bits"] = "native"
    make(tmp_path, [WANDA], native, machine)
    if machine:
        check(tmp_path, WANDA)
        return
    with pytest.raises(UserError, match="with bits 'native', but the workflow requests 'portable'"):
        check(tmp_path, WANDA)
