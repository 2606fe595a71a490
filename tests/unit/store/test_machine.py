"""What is said of the machine, whatever its environment holds."""

import pytest

from leap_repro.store import machine


@pytest.mark.parametrize(("said", "threads"), [("3", 3), ("4,2", 4)])
def test_threads_are_those_of_the_outermost_level(monkeypatch, said, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert machine.machine.__wrapped__()["threads"] == threads


def test_processor_and_widest_vectors_are_read(monkeypatch):
    monkeypatch.setattr(machine, "_cpuinfo", lambda: "model name\t: A Processor\nflags\t\t: sse4_2 avx avx2 fma\n")
    found = machine.machine.__wrapped__()
    assert (found["cpu"], found["instructions"]) == ("A Processor", "avx2")


def test_elsewhere_than_on_linux_the_architecture_is_said(monkeypatch):
    monkeypatch.setattr(machine, "_cpuinfo", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "arm64")
    found = machine.machine.__wrapped__()
    assert (found["cpu"], found["instructions"]) == ("arm64", "arm64")
