"""No two processes hold one device at a time, whatever they ask for and however they end; seen from outside, by files
that each makes when it has a device and that must not be there yet."""

import os
import signal
import subprocess
import sys
import time

import pytest

from leap_repro.pipeline.launch.devices import Device
from leap_repro.pipeline.launch.lease import lease

HOLD = """
import os, random, sys, time
from pathlib import Path
from leap_repro.pipeline.launch.devices import Device
from leap_repro.pipeline.launch import lease as module
module.LOOK_SECONDS = 0.01
folder, seen, count, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
candidates = [Device(name, 1) for name in sys.argv[5].split(",")]
held = module.lease(count, candidates, folder)
files = [seen / device.name for device in held.devices]
for file in files: os.close(os.open(file, os.O_CREAT | os.O_EXCL))
print("held", *(device.name for device in held.devices), flush=True)
time.sleep(seconds)
for file in files: file.unlink()
"""


def devices_of(count):
    return [Device(f"device-{index}", 1) for index in range(count)]


@pytest.fixture
def holder(tmp_path):
    """A function that starts a process which holds `count` of the named devices for some seconds."""
    (tmp_path / "seen").mkdir()
    started = []

    def start(count, seconds, names="device-0,device-1,device-2"):
        command = [sys.executable, "-c", HOLD, tmp_path / "leases", tmp_path / "seen", str(count), str(seconds), names]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_crowd_that_wants_one_two_or_three_is_served_and_never_shares(holder):
    """A deadlock would run into the time-out, a shared device ends its second holder with FileExistsError."""
    crowd = [holder(1 + index % 3, 0.05) for index in range(9)]
    for process in crowd:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert output.startswith("held device-")


def test_devices_of_a_killed_process_are_free_at_once(holder, tmp_path):
    process = holder(2, 600)
    assert process.stdout.readline().split() == ["held", "device-0", "device-1"]
    waiting = holder(3, 0)
    time.sleep(0.3)
    assert waiting.poll() is None
    process.send_signal(signal.SIGKILL)
    for name in ("device-0", "device-1"):
        (tmp_path / "seen" / name).unlink()
    assert waiting.stdout.readline().split() == ["held", "device-0", "device-1", "device-2"]


def test_who_waits_for_other_devices_holds_nobody_up(holder):
    first = holder(1, 600, "device-0")
    assert first.stdout.readline()
    assert holder(1, 600, "device-0").poll() is None
    assert holder(1, 0, "device-1").communicate(timeout=30)[0].split() == ["held", "device-1"]


def test_more_devices_than_there_are_is_a_refusal_not_a_wait(tmp_path, refused):
    with refused("this job needs 3 GPUs and may use 2 here: device-0, device-1"):
        lease(3, devices_of(2), tmp_path)


def test_a_place_that_cannot_hold_locks_is_named(tmp_path, refused):
    (tmp_path / "file").touch()
    with refused("cannot keep the locks of GPUs in", "file/leases: Not a directory"):
        lease(1, devices_of(1), tmp_path / "file/leases")


def link_folder(folder, victim):
    folder.symlink_to(victim.parent)


def open_folder(folder, victim):
    folder.mkdir()
    folder.chmod(0o777)


def others_folder(folder, victim):
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)


def link_file(folder, victim):
    folder.mkdir(mode=0o700)
    (folder / "taking").symlink_to(victim)
    (folder / "device-0").symlink_to(victim)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (link_folder, "Not a directory"),
        (open_folder, "with the mode 777, not yours with 700"),
        (others_folder, "it is user 12345's"),
        (link_file, "symbolic links"),
    ],
)
def test_a_folder_that_another_has_prepared_is_refused_and_no_file_written_over(tmp_path, refused, prepare, words):
    victim = tmp_path / "home/device-0"
    victim.parent.mkdir(mode=0o700)
    victim.write_text("precious")
    prepare(tmp_path / "leases", victim)
    with refused("cannot keep the locks of GPUs in", words, "TMPDIR"):
        lease(1, devices_of(1), tmp_path / "leases")
    assert victim.read_text() == "precious"
    assert list(victim.parent.iterdir()) == [victim]


def test_a_lease_is_kept_by_whoever_shares_it(tmp_path, holder):
    held = lease(1, devices_of(1), tmp_path / "leases")
    share = "import os, time; from leap_repro.pipeline.launch.lease import share; from pathlib import Path;"
    share += f"share(Path({str(held.files[0])!r})); print('shared', flush=True); time.sleep(600)"
    sharer = subprocess.Popen([sys.executable, "-c", share], stdout=subprocess.PIPE, text=True)
    try:
        assert sharer.stdout.readline().strip() == "shared"
        for lock in held.locks:
            os.close(lock)
        waiting = holder(1, 0, "device-0")
        time.sleep(0.3)
        assert waiting.poll() is None
    finally:
        sharer.kill()
        sharer.communicate()
    assert waiting.communicate(timeout=30)[0].split() == ["held", "device-0"]


def test_who_waits_says_for_whom(tmp_path, holder, caplog, monkeypatch):
    caplog.set_level("INFO")
    first = holder(2, 0.5, "device-0,device-1")
    assert first.stdout.readline()
    held = lease(1, devices_of(2), tmp_path / "leases")
    assert held.devices == devices_of(1)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"waiting for 1 of 2 GPUs; processes that hold them: {first.pid}, {first.pid}"
