"""A scratch copy of the workflow with a tiny grid, run once; each test then works on a copy of its own."""

import leap_repro  # noqa: F401, I001  pins the numerical libraries, before numpy is loaded

import os
import shutil

import pytest
from filelock import FileLock
from scratch import REPOSITORY, checkout_of, snakemake, write_inputs


@pytest.fixture(autouse=True)
def own_environment():
    """What a stage that runs in this process sets (evaluation goes offline) is not left to the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A scratch checkout in which the tiny grid has been run; read only. The workers of `pytest -n` share one."""
    os.environ.pop("PYTHONPATH", None)
    top = tmp_path_factory.getbasetemp()
    top = (top.parent if "PYTEST_XDIST_WORKER" in os.environ else top) / "finished"
    top.mkdir(exist_ok=True)
    with FileLock(top / "lock"):
        if not (top / "whole").exists():
            shutil.rmtree(top / "checkout", ignore_errors=True)
            folder = checkout_of(top / "checkout", REPOSITORY / "tests/config/tiny.yaml")
            write_inputs(folder)
            snakemake(folder)
            (top / "whole").touch()
    return top / "checkout"


@pytest.fixture
def checkout(finished, tmp_path):
    """A copy of the finished checkout for one test to change."""
    folder = tmp_path / "checkout"
    shutil.copytree(finished, folder, symlinks=True, copy_function=shutil.copy2)
    return folder
