"""The GPUs of a machine, as a driver made for the test names them: a library of C that only knows three."""

import os
import shutil
import subprocess
import sys

import pytest

from leap_repro.pipeline.launch.devices import Device, devices, visible

DRIVER = r"""
#include <string.h>
static const char *names[] = {"GPU-aaaa-0", "GPU-aabb-1", "GPU-cccc-2", "MIG-dddd-3"};
typedef struct { unsigned long long total, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) { *device = (void *)(index + 1L); return 0; }
int nvmlDeviceGetHandleByUUID(const char *name, void **device) {
    *device = (void *)4L; return strcmp(name, names[3]) != 0;
}
int nvmlDeviceGetUUID(void *device, char *name, unsigned int length) {
    strncpy(name, names[(long)device - 1], length); return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory *found) { found->total = 1000ULL * (long)device; return 0; }
"""
ALL = ["GPU-aaaa-0", "GPU-aabb-1", "GPU-cccc-2"]
PRINT = "from leap_repro.pipeline.launch.devices import devices\nfor d in devices(): print(d.name, d.memory)"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The folder of a libnvidia-ml.so.1."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "nvml.c").write_text(DRIVER)
    library = ["cc", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", folder / "nvml.c"]
    subprocess.run(library, check=True)
    return folder


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        (None, ALL),
        ("", []),
        ("2,0", [ALL[2], ALL[0]]),
        ("1, -1,0", [ALL[1]]),
        ("3", []),
        ("NoDevFiles", []),
        ("GPU-cc,GPU-aabb-1", [ALL[2], ALL[1]]),
        ("MIG-dddd-3,MIG-none,0", ["MIG-dddd-3"]),
    ],
)
def test_the_driver_is_asked_and_what_is_hidden_is_left_out(driver, entries, names):
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA", "LEAP_REPRO"))}
    variables |= {"LD_LIBRARY_PATH": str(driver)} | ({} if entries is None else {"CUDA_VISIBLE_DEVICES": entries})
    found = subprocess.run([sys.executable, "-c", PRINT], env=variables, capture_output=True, text=True, check=True)
    number = {name: place for place, name in enumerate([*ALL, "MIG-dddd-3"], start=1)}
    assert found.stdout.splitlines() == [f"{name} {1000 * number[name]}" for name in names]


def test_pretended_devices_are_of_the_number_and_the_memory_that_is_said(monkeypatch):
    monkeypatch.setenv("LEAP_REPRO_PRETEND_DEVICES", "2x80")
    found = devices()
    assert [(device.name, device.memory) for device in found] == [("pretended-0", 8e10), ("pretended-1", 8e10)]
    assert visible(found) == ""
    monkeypatch.setenv("LEAP_REPRO_PRETEND_DEVICES", "3")
    assert len(devices()) == 3


def test_a_pretence_that_is_no_number_is_refused(monkeypatch, refused):
    monkeypatch.setenv("LEAP_REPRO_PRETEND_DEVICES", "many")
    with refused("LEAP_REPRO_PRETEND_DEVICES is 'many'"):
        devices()


def test_a_job_sees_its_own_devices_by_names_that_no_other_device_has():
    assert visible([Device("GPU-b", 1), Device("GPU-a", 1)]) == "GPU-b,GPU-a"
