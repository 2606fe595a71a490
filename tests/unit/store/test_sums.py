"""Digests beside files, as `sha256sum` has them."""

import shutil
import subprocess

import pytest

from leap_repro.store.sums import ALL, checked_file, checked_files, write_sums


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "a b.csv", tmp_path / "a.parquet"]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return paths


def test_what_was_written_is_checked(files, tmp_path):
    write_sums(tmp_path / ALL, files)
    assert checked_files(tmp_path / ALL) == files
    assert checked_file(files[1]) == files[1]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_checks_it_too(files, tmp_path):
    write_sums(tmp_path / ALL, files)
    assert subprocess.run(["sha256sum", "-c", "--strict", ALL], cwd=tmp_path, capture_output=True).returncode == 0


def test_every_changed_byte_of_a_file_and_of_its_digest_is_refused(files, tmp_path, refused):
    sums = tmp_path / "a.sha256"
    write_sums(sums, files[1:])
    for path in (files[1], sums):
        good = path.read_bytes()
        for place in range(len(good)):
            path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            with refused(str(tmp_path)):
                checked_file(files[1])
        path.write_bytes(good)
    assert checked_file(files[1])


def test_a_file_that_is_not_listed_or_has_no_digest_is_refused(files, tmp_path, refused):
    with refused("no digest beside it", "a.sha256", ALL):
        checked_file(files[1])
    write_sums(tmp_path / ALL, files[:1])
    with refused(str(files[1]), "not listed"):
        checked_file(files[1])


@pytest.mark.parametrize("text", ["x", "\n", "0" * 64 + "  gone.csv\n"])
def test_a_list_that_is_none_is_refused(tmp_path, refused, text):
    (tmp_path / ALL).write_text(text)
    with refused(str(tmp_path)):
        checked_files(tmp_path / ALL)
