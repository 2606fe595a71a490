"""A line of configuration may name a method outside the package: its options are checked, its code is fingerprinted."""

from __future__ import annotations

import pytest
from outside_methods import TEMPERED, install, methods_may_come, write  # noqa: F401

from leap_repro.errors import UserError
from leap_repro.pipeline.asked import asked_of
from leap_repro.pipeline.fingerprint import fingerprint, module_digests
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.stale_reason import stale_reason
from leap_repro.pipeline.tracking import Tracker, code, digests, prune_modules
from leap_repro.prune import methods
from leap_repro.prune.methods import names
from leap_repro.store.atomic import write_json

pytestmark = pytest.mark.usefixtures("methods_may_come")


@pytest.fixture
def study_with(config):
    """(module, options) -> the study whose grid also runs the line `mine`."""

    def build(module, options=None):
        config["methods"]["mine"] = {"module": str(module), "label": "Mine", "options": options or {}}
        grid = config["scales"]["miniature"]
        grid["methods"] = [*(name for name in grid["methods"] if name != "mine"), "mine"]
        return read_study(config)

    return build


def test_the_options_of_a_file_of_ones_own_are_checked_as_any_others(study_with, tmp_path, refused):
    file = write(tmp_path / "tempered.py")
    assert study_with(file, {"exponent": 0.25}).methods["mine"].given == {"exponent": 0.25}
    with refused("config: methods.mine.options.exponent is 0; it must be a number above 0"):
        study_with(file, {"exponent": 0})
    with refused("methods.mine.options has the unknown key 'power'; allowed are ['exponent']"):
        study_with(file, {"power": 2.0})


def test_a_broken_method_is_told_only_if_a_line_names_it(study_with, config, tmp_path, monkeypatch, refused):
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    file = write(tmp_path / "newcomer.py", "import no_such_module\n")
    assert "newcomer" in names()
    assert read_study(config).methods["wanda"].module == "wanda"
    words = f"config: methods.mine.module is 'newcomer'; the method file {file}, line 1: ModuleNotFoundError"
    with refused(words):
        study_with("newcomer")


def test_a_mistake_elsewhere_is_told_beside_a_broken_method(config, tmp_path, monkeypatch, refused):
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    write(tmp_path / "newcomer.py", "X = Y\n")
    config["methods"]["leap"]["selector"] = "wanda"
    with refused("methods.leap.selector is 'wanda'; only the modules ['optima'] have it"):
        read_study(config)


def test_a_file_that_is_not_there_is_named(study_with, refused):
    with refused("methods.mine.module is 'no/such.py'; there is no file no/such.py with a pruning method in"):
        study_with("no/such.py")


def test_two_lines_may_share_a_file_but_two_files_no_name(study_with, config, tmp_path, refused):
    first, second = write(tmp_path / "a/tempered.py"), write(tmp_path / "b/tempered.py")
    config["methods"]["other"] = {"module": str(first)}
    assert study_with(first).methods["other"].module == str(first)
    with refused("another method has the same name"):
        study_with(second)


def test_an_edit_changes_the_fingerprint_of_its_cells_alone_and_has_a_name(study_with, tmp_path, monkeypatch):
    """The same file before, after a remark, and after an edit, each in a folder of its own: places do not count."""
    texts = (TEMPERED, f"{TEMPERED}\n# a remark\n", TEMPERED.replace(".abs()", ".abs() + 1"))
    before, remarked, edited = (write(tmp_path / f"{i}/tempered.py", text) for i, text in enumerate(texts))
    study = study_with(before)
    run = prune_modules(study.methods["mine"])
    assert run[1:] == (str(before),)
    assert asked_of(study, next(iter(study.models)))["methods"]["mine"]["code"] == code(*run)
    assert code(*run) == code(run[0], str(remarked)) != code(run[0], str(edited))
    assert code(*run) != code(run[0]), "the file itself enters"
    assert {"tempered.py", "leap_repro.prune.layerwise.select"} < set(digests(*run))
    assert not {"leap_repro.prune.methods.wanda"} & set(digests(*run))
    write_json(tmp_path / "cell/provenance.json", {"modules": digests(*run), "parameters": {"options": {}}})
    assert stale_reason(tmp_path / "cell", digests(run[0], str(edited)), {}) == "tempered.py changed"
    assert stale_reason(tmp_path / "cell", digests(run[0], str(remarked)), {}) == ""
    monkeypatch.chdir(tmp_path / "2")
    assert fingerprint("tempered.py") == fingerprint(str(edited))


def test_the_pins_of_what_it_imports_count(study_with, project, tmp_path):
    pins = Tracker(project / "envs/requirements.txt").params(prune_modules)["packages"]
    plain = study_with(write(tmp_path / "a/tempered.py")).methods["mine"]
    other = write(tmp_path / "b/scipian.py", TEMPERED.replace("from pydantic", "import matplotlib\nfrom pydantic"))
    assert "matplotlib==" not in pins(plain)
    assert "matplotlib==" in pins(study_with(other).methods["mine"])


@pytest.mark.parametrize(
    "line", ["import beside", "from beside import A", "def f():\n    import beside", "from folder.deep import A"]
)
def test_what_lies_beside_it_may_not_be_imported(study_with, tmp_path, monkeypatch, refused, line):
    """Whether Python would find it (it does where the working directory is on its path) or not."""
    write(tmp_path / "beside.py", "A = 1\n")
    write(tmp_path / "folder/deep.py", "A = 1\n")
    file = write(tmp_path / "tempered.py", TEMPERED.replace("from pydantic", f"{line}\n\n\nfrom pydantic"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="which is not installed, so that its edits would not be noticed"):
        fingerprint(str(file))
    monkeypatch.syspath_prepend(tmp_path)
    with refused("imports"):
        study_with("tempered.py")


def test_a_relative_import_is_refused(tmp_path):
    file = write(tmp_path / "tempered.py", f"{TEMPERED}\n\ndef f():\n    from . import beside\n")
    with pytest.raises(UserError, match=r"tempered\.py, line 30: .* cannot use relative imports"):
        fingerprint(str(file))


def test_of_an_installed_package_all_enters_that_the_method_imports_from_it(study_with, tmp_path, monkeypatch):
    helper = TEMPERED.replace(
        "from pydantic", "from . import scores\nfrom their_rules.deep.more import A\nfrom pydantic"
    )
    write(tmp_path / "their_rules/tempered.py", helper)
    write(tmp_path / "their_rules/scores.py", "from .unused import B\n")
    write(tmp_path / "their_rules/unused.py", "B = 1\n")
    write(tmp_path / "their_rules/apart.py", "C = 1\n")
    write(tmp_path / "their_rules/deep/__init__.py", "")
    write(tmp_path / "their_rules/deep/more.py", "from ..scores import B\nA = B\n")
    install(tmp_path, "their_rules", theirs="their_rules.tempered")
    monkeypatch.syspath_prepend(tmp_path)
    run = prune_modules(study_with("theirs").methods["mine"])
    found = {name for name in module_digests(*run) if name.startswith("their_rules")}
    inner = ("tempered", "scores", "unused", "deep", "deep.more")
    assert found == {"their_rules", *(f"their_rules.{name}" for name in inner)}
