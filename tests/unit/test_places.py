"""A place that cannot be used is found before anything is computed, and named."""

import os

import pytest

from leap_repro.export.folder import new_folder, refuse_filled
from leap_repro.places import check_makable, expanded


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    return tmp_path


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("file", "file is a file"),
        ("file/below/it", "file is a file"),
        ("link", "link is a link to nothing"),
        ("link/below", "link is a link to nothing"),
        ("circle", "circle is a link to nothing"),
        ("n" * 300, "a name may have 255 bytes at most"),
        ("new/" + "n" * 300, "a name may have 255 bytes at most"),
        ("/proc/1/new", "cannot be"),
    ],
)
def test_a_folder_that_cannot_be_made_is_told_with_what_is_in_its_way(here, refused, place, words):
    with refused("--output", words):
        check_makable(here / place, "--output")
    with refused("--output", words):
        refuse_filled(here / place)
    assert (here / "file").read_text() == "precious"
    assert not (here / "nothing").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told(here, refused):
    here.chmod(0o555)
    try:
        with refused("--output", "no write permission"):
            refuse_filled(here / "new")
    finally:
        here.chmod(0o755)


def test_homes(monkeypatch, tmp_path, refused):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded(tmp_path.__class__("~/out"), "--output") == tmp_path / "out"
    with refused("--output is '~nosuchuser/out'", "no such home folder"):
        expanded(tmp_path.__class__("~nosuchuser/out"), "--output")


@pytest.mark.parametrize("name", ["a/b/new", "empty", "link-to-empty", "n" * 255])
def test_a_new_folder_is_filled_through_a_link_and_whatever_its_name(here, name):
    (here / "empty").mkdir()
    (here / "link-to-empty").symlink_to(here / "empty")
    with new_folder(here / name) as folder:
        (folder / "a").touch()
    assert [path.name for path in (here / name).iterdir()] == ["a"]
