# SPDX-License-Identifier: GPL-2.0-or-later
"""Live dumps of a guest that is nothing but a loop of stores (guest/firmware.S), under TCG and,
where it runs, under KVM."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import drgn
import numpy as np
import pytest
from accelerator import why_no_kvm
from firmware import ROUNDS
from oracle import Reference

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import LOST, DumpFile, open_dump, verify_dump
from livedumpfs.errors import UsageError
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.units import PAGE_SIZE

BASE = ("qemu-system-x86_64", "-display", "none", "-nodefaults", "-m", "64M")
FIRST = 256
"""Pages from here on follow the number of rounds."""
RATE = 64 << 20
"""Bytes a second: the sweep leaves the guest some time."""
DEADLINE_S = 300.0


@pytest.fixture(params=["tcg", "kvm"])
def accelerator(request: pytest.FixtureRequest) -> str:
    why = why_no_kvm() if request.param == "kvm" else ""
    if why:
        pytest.skip(f"no KVM: {why}")
    return str(request.param)


@pytest.fixture
def storing(busy_firmware: Path) -> Iterator[Callable[..., QemuMachine]]:
    """storing(accelerator): a guest that has stored to all of its memory once."""
    machines = []

    def make(accelerator: str = "tcg", *words: str) -> QemuMachine:
        machine = QemuMachine([*BASE, "-accel", accelerator, "-bios", str(busy_firmware), *words])
        machines.append(machine)
        machine.start()
        until(lambda: rounds(machine) > 1)
        return machine

    yield make
    for machine in machines:
        machine.close()


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def rounds(machine: QemuMachine) -> int:
    return int.from_bytes(machine.arena.read(ROUNDS, 4), "little")


def check_instant(dump: DumpFile, size: int) -> None:
    """The pages were stored to in order: those up to some page have the number of this round, the
    rest that of the one before."""
    words = np.frombuffer(dump.read_arena(0, size), "<u4").reshape(-1, PAGE_SIZE // 4)[:, 0]
    count = words[ROUNDS // PAGE_SIZE]
    behind = count - words[FIRST:].astype(np.int64)
    assert count > 1 and set(behind.tolist()) <= {0, 1}
    assert (np.diff(behind) >= 0).all(), "no later page is newer"


def dump_it(machine: QemuMachine, target: str | Path, settings: DumpSettings, fd: int) -> LiveDump:
    """To its end, with stores of the guest before the sweep and beside it."""
    live = LiveDump(machine)
    live.init(target, settings, reference=fd)
    try:
        live.start()
        until(lambda: live.counters().faults > 0)
        live.sweep()
        live.finish(DEADLINE_S, check=False)
    finally:
        live.release()
    return live


@pytest.mark.parametrize("arming", ["swap", "mprotect"])
@pytest.mark.parametrize("format", ["elf", "kdump"])
def test_stores_of_the_guest_during_a_dump(
    storing: Callable[..., QemuMachine], tmp_path: Path, accelerator: str, format: str, arming: str
) -> None:
    machine, target = storing(accelerator), tmp_path / "dump"
    settings = DumpSettings(format=format, arming=arming, backend="uffd", sweep_rate=RATE)
    with closing(Reference(machine.arena.size)) as reference:
        live = dump_it(machine, target, settings, reference.fd)
        assert live.verdict == "consistent", live.failure
        counters = live.counters()
        assert counters.faults > 0 and counters.by_fault > 0 and counters.lost == 0
        with open_dump(target) as dump:
            assert len(reference.different_pages(dump)) == 0
            assert verify_dump(dump).ok
            check_instant(dump, machine.arena.size)
            assert dump.meta["machine"]["accelerator"] == accelerator
    before = rounds(machine)
    until(lambda: rounds(machine) > before + 1)


def test_the_backend_that_kvm_would_answer_with_an_error_is_refused(
    storing: Callable[..., QemuMachine], tmp_path: Path, accelerator: str
) -> None:
    """And TCG's disks. The guest does not notice."""
    machine = storing(accelerator)
    with pytest.raises(UsageError, match="cannot be noticed by sigsegv") as caught:
        LiveDump(machine).init(tmp_path / "dump", DumpSettings(backend="sigsegv"))
    assert "uffd" in caught.value.hint
    before = rounds(machine)
    until(lambda: rounds(machine) > before)
    assert LiveDump(machine).save(tmp_path / "dump") == "consistent"


def test_the_accelerator_is_what_qemu_has_not_what_it_was_asked_for() -> None:
    """KVM cannot have so large a ring: QEMU takes the next."""
    words = ["-accel", "kvm,dirty-ring-size=1048576", "-accel", "tcg"]
    with QemuMachine([*BASE, *words]) as machine:
        assert machine.metadata()["accelerator"] == "tcg"


def test_start_does_not_look_for_what_init_has_not_found(
    storing: Callable[..., QemuMachine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest without VMCOREINFO: all of its memory is looked through while it runs, once."""
    live = LiveDump(storing())
    live.init(tmp_path / "dump")
    monkeypatch.delattr("livedumpfs.machines.kernels.information.locate_vmcoreinfo")
    try:
        live.start()
        assert not live.snapshot.machine.notes
    finally:
        live.release()


@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
@pytest.mark.parametrize("where", ["file", "device"])
def test_each_kind_of_target(
    storing: Callable[..., QemuMachine],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    where: str,
    format: str,
) -> None:
    machine, target = storing(), str(tmp_path / "dump")
    sidecar = str(tmp_path / "table") if format == "raw" else None
    if where == "device":
        target = request.getfixturevalue("loop_device")(128 << 20)
    settings = DumpSettings(format=format, sidecar=sidecar, sweep_rate=RATE)
    with closing(Reference(machine.arena.size)) as reference:
        live = dump_it(machine, target, settings, reference.fd)
        assert live.verdict == "consistent", live.failure
        with open_dump(target, sidecar) as dump:
            assert len(reference.different_pages(dump)) == 0
            assert verify_dump(dump).ok
            check_instant(dump, machine.arena.size)


@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
def test_under_fail_the_dump_is_torn_and_names_its_pages(
    storing: Callable[..., QemuMachine], tmp_path: Path, format: str
) -> None:
    machine, target = storing(), tmp_path / "dump"
    settings = DumpSettings(format=format, policy="fail", granule=PAGE_SIZE, pool=2 * PAGE_SIZE)
    with closing(Reference(machine.arena.size)) as reference:
        live = LiveDump(machine)
        live.init(target, settings, reference=reference.fd)
        try:
            live.start()
            until(lambda: live.counters().lost > 0)
            live.sweep()
            assert live.finish(DEADLINE_S, check=False) == "torn"
        finally:
            live.release()
        with open_dump(target) as dump:
            named = {page for first, end in dump.pfn_ranges(LOST) for page in range(first, end)}
            assert dump.verdict == "torn" and len(named) == live.counters().lost > 0
            assert dump.meta["lost"]
            assert len(reference.wrong_pages(dump)) == 0, "what is not named is right"
            with pytest.raises(OSError, match="lost"):
                dump.read_arena(min(named) * PAGE_SIZE, 1)
    before = rounds(machine)
    until(lambda: rounds(machine) > before + 1)


@pytest.mark.parametrize("format", ["elf", "kdump"])
def test_memory_above_4_gib(tmp_path: Path, format: str) -> None:
    """Of 3 GiB one lies there, and what it holds is where the guest has it."""
    target = tmp_path / "dump"
    words = ["-M", "q35", "-display", "none", "-nodefaults", "-m", "3G"]
    with QemuMachine(["qemu-system-x86_64", "-accel", "tcg", *words]) as machine:
        machine.start()
        places = (1 << 30, 2 << 30, (2 << 30) + 5 * PAGE_SIZE, machine.arena.size - PAGE_SIZE)
        written = {at: os.urandom(PAGE_SIZE) for at in places}  # where firmware has nothing
        for at, data in written.items():
            os.pwrite(machine.arena.fd, data, at)
        assert LiveDump(machine).save(target, DumpSettings(format=format)) == "consistent"
    program = drgn.Program()
    if format == "elf":  # of a kdump drgn wants a kernel's VMCOREINFO
        program.set_core_dump(str(target))
    with open_dump(target) as dump:
        low, high = dump.memory_map
        assert (low.start, low.size, high.start, high.size) == (0, 2 << 30, 4 << 30, 1 << 30)
        for at, data in written.items():
            physical = at if at < low.size else high.start + at - low.size
            assert dump.read_physical(physical, PAGE_SIZE) == data
            if format == "elf":
                assert program.read(physical, PAGE_SIZE, physical=True) == data


def test_the_probe_takes_no_kvm_for_what_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that the device opens, but that a guest has run, is what counts."""
    why_no_kvm.cache_clear()
    try:
        monkeypatch.setattr("accelerator._CODE", b"\xeb\xfe")  # a loop for ever
        monkeypatch.setattr("accelerator.FIRMWARE_S", 1.0)
        assert why_no_kvm()
        why_no_kvm.cache_clear()
        monkeypatch.setenv("LIVEDUMP_ACCELERATOR", "tcg")
        assert "LIVEDUMP_ACCELERATOR" in why_no_kvm()
    finally:
        why_no_kvm.cache_clear()
