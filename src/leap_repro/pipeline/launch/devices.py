"""Which GPUs of this machine a run may use, asked of the driver (NVML): CUDA itself would leave a context on one.

CUDA_VISIBLE_DEVICES is respected; its numbers count as `nvidia-smi` does. For tests, LEAP_REPRO_PRETEND_DEVICES=4 (or
4x80, with gigabytes) stands for four GPUs that are not there: jobs take turns on them, and compute on the CPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL, Structure, byref, c_char_p, c_uint, c_ulonglong, c_void_p, create_string_buffer
from dataclasses import dataclass

from leap_repro.errors import UserError

PRETENDED = "LEAP_REPRO_PRETEND_DEVICES"
VISIBLE = "CUDA_VISIBLE_DEVICES"
NVML = "libnvidia-ml.so.1"
UUID_BYTES = 96


@dataclass(frozen=True)
class Device:
    """A GPU: its name on this machine (a UUID, which CUDA_VISIBLE_DEVICES takes too) and its memory in bytes."""

    name: str
    memory: int
    pretended: bool = False


class _Memory(Structure):
    _fields_ = [("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]


def devices() -> list[Device]:
    """The GPUs that this process may use, in the order in which it would number them; none without NVIDIA's driver.

    Raises UserError for a LEAP_REPRO_PRETEND_DEVICES that is no number.
    """
    if os.environ.get(PRETENDED):
        return _pretended(os.environ[PRETENDED])
    with _nvml() as nvml:
        if nvml is None:
            return []
        found = [_device(nvml, handle) for handle in _handles(nvml)]
        entries = os.environ.get(VISIBLE)
        return found if entries is None else list(dict.fromkeys(_chosen(nvml, found, entries)))


def visible(chosen: list[Device]) -> str:
    """What CUDA_VISIBLE_DEVICES must be for these devices and no other; pretended ones are the CPU."""
    return ",".join(device.name for device in chosen if not device.pretended)


def largest_memory(found: list[Device]) -> int:
    """The memory of the largest of these devices in bytes; 0 if there is none."""
    return max((device.memory for device in found), default=0)


def _pretended(text: str) -> list[Device]:
    parts = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if parts is None:
        raise UserError(f"{PRETENDED} is {text!r}; it must be a number of devices, or 4x80 for four of 80 GB each")
    memory = int(parts[2]) * 10**9 if parts[2] else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [Device(f"pretended-{index}", memory, pretended=True) for index in range(int(parts[1]))]


@contextmanager
def _nvml() -> Iterator[CDLL | None]:
    try:
        nvml = CDLL(NVML)
    except OSError:
        nvml = None
    if nvml is None or nvml.nvmlInit_v2():
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def _handles(nvml: CDLL) -> Iterator[c_void_p]:
    count = c_uint()
    nvml.nvmlDeviceGetCount_v2(byref(count))
    for index in range(count.value):
        handle = c_void_p()
        if not nvml.nvmlDeviceGetHandleByIndex_v2(c_uint(index), byref(handle)):
            yield handle


def _device(nvml: CDLL, handle: c_void_p) -> Device:
    name, memory = create_string_buffer(UUID_BYTES), _Memory()
    nvml.nvmlDeviceGetUUID(handle, name, c_uint(UUID_BYTES))
    nvml.nvmlDeviceGetMemoryInfo(handle, byref(memory))
    return Device(name.value.decode(), memory.total)


def _chosen(nvml: CDLL, found: list[Device], entries: str) -> Iterator[Device]:
    """The devices of a CUDA_VISIBLE_DEVICES: numbers, (beginnings of) UUIDs, parts of a GPU. As for CUDA, an entry that
    is none of these hides all that follow."""
    for entry in map(str.strip, entries.split(",")):
        device = _named(nvml, found, entry)
        if device is None:
            return
        yield device


def _named(nvml: CDLL, found: list[Device], entry: str) -> Device | None:
    if entry.isdecimal():
        return found[int(entry)] if int(entry) < len(found) else None
    if entry.startswith("MIG-"):
        handle = c_void_p()
        known = not nvml.nvmlDeviceGetHandleByUUID(c_char_p(entry.encode()), byref(handle))
        return _device(nvml, handle) if known else None
    return next((device for device in found if entry and device.name.startswith(entry)), None)
