"""An installed wheel is all that the library needs: no checkout beside it."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

BUILT = ("src", "setup.py", "pyproject.toml", "README.md", "LICENSE")
SCRIPT = """
import sys
import leap_repro
assert leap_repro.__file__.startswith(sys.argv[1]), leap_repro.__file__
from leap_repro import evaluate_model, export_model, prune_model
from leap_repro.export.load import load_pruned
from leap_repro.miniature.text import pages

pruned = prune_model("llama3.2-1b-mini", calibration=list(pages("calibration", 200)), sequences=8, length=32)
found = evaluate_model(pruned, tasks="miniature", text="miniature", lengths=[32], windows=4, questions=4)
folder = export_model(pruned, "out", format="packed", after=found)
exported, loaded = load_pruned(folder).state_dict(), pruned.load().bfloat16().state_dict()
assert all((exported[name] == weight).all() for name, weight in loaded.items())
"""


@pytest.mark.slow
def test_the_three_functions_run_from_a_wheel_in_an_empty_folder(project, tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    for name in BUILT:
        copy = shutil.copytree if (project / name).is_dir() else shutil.copyfile
        copy(project / name, tmp_path / "source" / name)
    build = ["wheel", str(tmp_path / "source"), "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    assert (site / "leap_repro/py.typed").is_file()
    (tmp_path / "empty").mkdir()
    environment = os.environ | {"PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", SCRIPT, str(site)], check=True, env=environment, cwd=tmp_path / "empty")
