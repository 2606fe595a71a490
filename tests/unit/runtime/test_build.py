"""The installation: a compiler builds the kernels, and they pass the sanitizers; without one it works all the same."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

BUILT = ("src", "setup.py", "pyproject.toml", "README.md", "LICENSE")
USED = """
import sys, warnings
import leap_repro
assert leap_repro.__file__.startswith(sys.argv[1]), leap_repro.__file__
import torch
from leap_repro.runtime.forms import form
from leap_repro.runtime.kernels import PackedMatrix
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    assert PackedMatrix.from_dense(torch.eye(70)).multiply(torch.ones(1, 70)).tolist() == [[1.0] * 70]
    print(form(), len(said))
"""
EVERY_READ = """
from itertools import product
import torch
from leap_repro.runtime.forms import compiled, form
from leap_repro.runtime.kernels import PackedMatrix, multiply_dense
import os
types = ("float32", "bfloat16", "float16")
for name, columns, share, dtype in product(compiled(), (1, 64, 70, 320), (0, 0.5, 1), types):
    os.environ["LEAP_REPRO_KERNELS"] = name
    form.cache_clear()
    mask = torch.rand(9, columns) < share
    dense = torch.randn(9, columns).to(getattr(torch, dtype)).masked_fill(~mask, 0)
    packed, x = PackedMatrix.from_dense(dense, mask), torch.randn(5, columns)
    values = (dense.float() * 99).to(torch.int8)
    whole = PackedMatrix(values[mask], packed.mask, (9, columns), torch.ones(9, 1))
    assert torch.equal(packed.multiply(x), multiply_dense(dense, x))
    assert torch.equal(whole.multiply(x), multiply_dense(values, x, torch.ones(9, 1)))
    assert torch.equal(packed.dense(), dense) and torch.equal(whole.dense(), values.float())
print("every form", *compiled())
"""


def install(project, folder, **environment):
    """The folder into which a wheel of a copy of the sources was unpacked."""
    for name in BUILT:
        copy = shutil.copytree if (project / name).is_dir() else shutil.copyfile
        copy(project / name, folder / "source" / name)
    for built in (folder / "source").rglob("*.so"):
        built.unlink()
    command = ["wheel", str(folder / "source"), "--no-deps", "--no-build-isolation", "-w", str(folder)]
    environment = os.environ | environment
    subprocess.run([sys.executable, "-m", "pip", *command], check=True, capture_output=True, env=environment)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def use(site, folder):
    """What the installed kernels say: the form, and how many warnings."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    environment.pop("LEAP_REPRO_KERNELS", None)
    command = [sys.executable, "-c", USED, str(site)]
    result = subprocess.run(command, check=True, env=environment, cwd=folder, capture_output=True, text=True)
    return result.stdout.split()


@pytest.mark.slow
def test_without_a_compiler_the_installation_works_and_says_that_it_is_slow(project, tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    site = install(project, tmp_path, CC="/bin/false")
    assert not list(site.rglob("*.so"))
    assert use(site, tmp_path) == ["torch", "1"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="no compiler")
def test_with_a_compiler_the_wheel_has_kernels_for_every_later_python(project, tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    site = install(project, tmp_path)
    (built,) = site.rglob("*.so")
    assert built.name == "_kernels.abi3.so"
    assert "-cp311-abi3-" in next(tmp_path.glob("*.whl")).name
    form, warnings = use(site, tmp_path)
    assert (form != "torch", warnings) == (True, "0")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
def test_no_form_reads_or_writes_beyond_its_memory(project, tmp_path):
    """Under the address sanitizer and that of undefined behaviour; torch's memory comes from the sanitizer's malloc."""
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(library):
        pytest.skip("gcc has no address sanitizer")
    site = tmp_path / "site"
    shutil.copytree(project / "src" / "leap_repro", site / "leap_repro", ignore=shutil.ignore_patterns("*.so"))
    room = site / "leap_repro" / "runtime"
    include = sysconfig.get_path("include")
    flags = ["-O1", "-g", "-std=c11", "-ffp-contract=off", "-fPIC", "-shared", f"-I{include}"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *flags, *checks, room / "kernels.c", "-lm", "-o", room / "_kernels.abi3.so"], check=True)
    environment = os.environ | {"PYTHONPATH": str(site), "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, "-c", EVERY_READ]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.startswith("every form")
