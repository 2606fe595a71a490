"""The fingerprint decides what reruns: it must change with the logic that a job runs and with nothing else."""

import pytest

from leap_repro.pipeline.fingerprint import (
    CAN_CHANGE_A_NUMBER,
    closure,
    fingerprint,
    module_digests,
    packages,
    read_pins,
)

SOURCES = {
    "__init__.py": '"""A package."""\n',
    "job.py": (
        '"""A job."""\n\nfrom leap_repro import constants\nfrom leap_repro.parts.first import one\n\n\n'
        'def run():\n    """Run."""\n    from leap_repro.late import two\n\n'
        "    return one() + two() + constants.TEN  # the sum\n"
    ),
    "constants.py": "TEN = 10\n",
    "late.py": "def two():\n    return 2\n",
    "plain.py": "import json\nimport leap_repro.late\n",
    "parts/__init__.py": "",
    "parts/first.py": "import leap_repro.parts.deep\n\n\ndef one():\n    return 1\n",
    "parts/deep.py": "DEEP = 1\n",
    "unused.py": "UNUSED = 1\n",
}
JOB = ["", ".constants", ".job", ".late", ".parts", ".parts.deep", ".parts.first"]


def package(root, changes=None):
    """A fake `leap_repro` under `root`, some files replaced. Take a new root each time: syntax trees are cached."""
    for name, text in (SOURCES | (changes or {})).items():
        path = root / "leap_repro" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def changed(tmp_path):
    """Whether replacing text in one file changes the fingerprint of the job."""

    def compare(name, old, new):
        assert old in SOURCES[name]
        before = fingerprint("leap_repro.job", root=package(tmp_path / "before"))
        after = package(tmp_path / "after", {name: SOURCES[name].replace(old, new)})
        return before != fingerprint("leap_repro.job", root=after)

    return compare


def test_the_closure_follows_imports_at_the_top_in_functions_and_of_parents(tmp_path):
    root = package(tmp_path)
    assert closure("leap_repro.job", root=root) == [f"leap_repro{name}" for name in JOB]
    assert closure("leap_repro.plain", root=root) == ["leap_repro", "leap_repro.late", "leap_repro.plain"]


def test_the_closure_of_several_modules_is_their_union(tmp_path):
    root = package(tmp_path)
    both = closure("leap_repro.job", "leap_repro.plain", root=root)
    assert both == sorted(f"leap_repro{name}" for name in [*JOB, ".plain"])


def test_the_place_of_the_code_does_not_matter(tmp_path):
    places = [package(tmp_path / name) for name in ("here", "there")]
    assert len({fingerprint("leap_repro.job", root=root) for root in places}) == 1


def test_a_fingerprint_is_16_hexadecimal_digits(tmp_path):
    value = fingerprint("leap_repro.job", root=package(tmp_path))
    assert len(value) == 16
    assert int(value, 16) >= 0


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("job.py", "  # the sum", "  # another comment"),
        ("job.py", "  # the sum", ""),
        ("job.py", '"""A job."""', '"""Something else."""'),
        ("job.py", '    """Run."""\n', ""),
        ("job.py", "one() + two()", "(one()\n            + two())"),
        ("job.py", "\n\n\ndef", "\n\n# apart\n\n\n\ndef"),
        ("__init__.py", '"""A package."""\n', ""),
        ("unused.py", "1", "2"),
    ],
)
def test_comments_docstrings_formatting_and_other_modules_do_not_change_it(changed, name, old, new):
    assert not changed(name, old, new)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("job.py", "+ two()", "- two()"),
        ("job.py", '"""Run."""', 'print("Run.")'),
        ("constants.py", "10", "11"),
        ("late.py", "return 2", "return 3"),
        ("parts/deep.py", "1", "2"),
        ("parts/__init__.py", "", "SIDE_EFFECT = 1\n"),
        ("__init__.py", '"""A package."""\n', "SIDE_EFFECT = 1\n"),
    ],
)
def test_logic_anywhere_in_the_closure_changes_it(changed, name, old, new):
    assert changed(name, old, new)


def test_imports_for_type_checkers_do_not_change_it(tmp_path):
    """They never run: neither what stands there counts, nor what it names; what stands under `else` does."""
    block = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from leap_repro import {}\n"
    plain = {name: block.format(name) + SOURCES["late.py"] for name in ("unused", "constants")}
    places = [package(tmp_path / name, {"late.py": text}) for name, text in plain.items()]
    assert len({fingerprint("leap_repro.late", root=root) for root in places}) == 1
    assert closure("leap_repro.late", root=places[0]) == ["leap_repro", "leap_repro.late"]
    other = {"late.py": plain["unused"].replace("def two", "else:\n    import leap_repro.unused\n\n\ndef two")}
    assert "leap_repro.unused" in closure("leap_repro.late", root=package(tmp_path / "else", other))


def test_a_module_renamed_with_the_same_logic_changes_it(tmp_path):
    package(tmp_path, {"late_again.py": SOURCES["late.py"]})
    assert fingerprint("leap_repro.late", root=tmp_path) != fingerprint("leap_repro.late_again", root=tmp_path)


def test_an_unknown_module_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match=r"leap_repro\.nowhere"):
        fingerprint("leap_repro.job", "leap_repro.nowhere", root=package(tmp_path))


@pytest.mark.parametrize(
    ("stage", "inside", "outside"),
    [
        ("leap_repro.pipeline.stages.evaluate", "leap_repro.sparsity.masks", "leap_repro.prune.methods.wanda"),
        ("leap_repro.prune.methods.wanda", "leap_repro.models.walker", "leap_repro.prune.methods.admm"),
        ("leap_repro.pipeline.stages.prune", "leap_repro.portable.kernels", "leap_repro.library.prune"),
        ("leap_repro.pipeline.stages.calibration", "leap_repro.portable", "leap_repro.portable.kernels"),
    ],
)
def test_a_real_stage_is_stale_for_what_it_runs_only(stage, inside, outside):
    assert inside in closure(stage)
    assert outside not in closure(stage)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import torch\n", ["torch"]),
        ("def f():\n    from transformers.models import x\n", ["tokenizers", "transformers"]),
        ("import json\nimport tqdm\n", []),
        ("from leap_repro.late import two\n", ["numpy"]),
    ],
)
def test_the_packages_of_a_job_are_those_imported_in_its_closure_that_can_change_a_number(tmp_path, text, expected):
    package(tmp_path, {"job.py": text, "late.py": "import numpy.linalg\n"})
    assert packages("leap_repro.job", root=tmp_path) == expected


def test_every_package_that_can_change_a_number_is_pinned(project):
    pins = read_pins(project / "envs/requirements.txt")
    assert {package for known in CAN_CHANGE_A_NUMBER.values() for package in known} <= set(pins)


def test_pins_are_read_without_comments_and_extras(tmp_path):
    (tmp_path / "requirements.txt").write_text("# a==1\nb==2.0 # why\nc[d]==3.0+cpu\ne>=4\n")
    assert read_pins(tmp_path / "requirements.txt") == {"b": "2.0", "c": "3.0+cpu"}


def test_the_digests_name_the_module_that_changed(tmp_path):
    before = module_digests("leap_repro.job", root=package(tmp_path / "before"))
    after = module_digests("leap_repro.job", root=package(tmp_path / "after", {"late.py": "two = 3\n"}))
    assert {name for name in before if before[name] != after[name]} == {"leap_repro.late"}
