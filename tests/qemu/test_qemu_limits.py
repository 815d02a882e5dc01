# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that gets no more mappings, or no more memory, at each step of a dump: it runs on, and the
next dump is good."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.errors import LivedumpError
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.proc import proc_text

LIMIT = Path("/proc/sys/vm/max_map_count")
MORE = 300
"""Threads that QEMU has, each with two mappings, beyond what gives it as many mappings as we have:
it meets the limit first."""
WORDS = [
    "qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults", "-m", "64M",
]  # fmt: skip
RATE = 64 << 20
"""Bytes a second: the guest stores beside the sweep."""
DEADLINE_S = 300.0


def mappings(pid: int | str) -> int:
    return len(proc_text(f"/proc/{pid}/maps").splitlines())


@contextlib.contextmanager
def no_more_mappings(pid: int) -> Iterator[None]:
    """System-wide, so for as short as it goes."""
    before, now = LIMIT.read_text(), mappings(pid)
    assert now > mappings("self") + 100
    try:
        LIMIT.write_text(str(now))
        yield
    finally:
        LIMIT.write_text(before)


@contextlib.contextmanager
def no_more_memory(pid: int) -> Iterator[None]:
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.prlimit(pid, resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)


def good_dump(machine: QemuMachine, target: Path) -> None:
    assert LiveDump(machine).save(target) == "consistent"
    with open_dump(target) as dump:
        assert verify_dump(dump).ok


def faults(live: LiveDump, least: int) -> None:
    """The guest has met protected memory so many times."""
    end = time.monotonic() + DEADLINE_S
    while live.counters().faults < least:
        assert time.monotonic() < end, live.counters()
        time.sleep(0.01)


@pytest.mark.parametrize(
    "limit", [pytest.param(no_more_mappings, marks=pytest.mark.alone), no_more_memory]
)
@pytest.mark.parametrize("step", ["init", "start", "sweep"])
def test_a_qemu_at_its_limit(tmp_path: Path, busy_firmware: Path, step: str, limit: object) -> None:
    """What cannot be done says so; what needs nothing more is done: stores before the sweep, and
    all of it, to the seal, beside a guest that stores."""
    assert callable(limit)
    count = MORE + mappings("self") // 2
    threads = [word for i in range(count) for word in ("-object", f"iothread,id=io{i}")]
    with QemuMachine([*WORDS, "-bios", str(busy_firmware), *threads]) as machine:
        machine.start()
        pid = machine._process.pid
        live = LiveDump(machine)
        said, verdict = "", ""
        for each in ("init", "start", "sweep"):
            with limit(pid) if each == step else contextlib.nullcontext():
                try:
                    if each == "init":
                        live.init(tmp_path / "dump", DumpSettings(sweep_rate=RATE))
                    elif each == "start":
                        live.start()
                        faults(live, 1)
                    else:
                        live.sweep()
                        verdict = live.finish(DEADLINE_S, check=False)
                except LivedumpError as error:
                    said = f"{error} {error.hint}"
                    break
        if step == "init":
            assert "vm.max_map_count" in said
        assert said or verdict == "consistent", live.failure
        if step == "sweep":
            assert not said
            assert live.counters().lost == 0 < live.counters().by_fault
        live.release()
        assert machine.monitor.status() == "running"
        good_dump(machine, tmp_path / "next")
