# SPDX-License-Identifier: GPL-2.0-or-later
"""Live dumps of guests whose memory is of huge pages (hugetlbfs): armed in place, a page a granule,
and read without taking a page of the pool."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from firmware import ROUNDS
from oracle import Reference

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.errors import UsageError
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.settings import Format
from tests.fixtures.huge_pages import HUGE, available, huge_pages
from tests.qemu.lengths import LONG

SIZE = (1024 if LONG else 128) << 20
DUMPS = 10 if LONG else 3
FORMATS: tuple[Format, ...] = ("elf", "kdump", "raw")
RATE = SIZE
"""Bytes a second: the guest stores beside the sweep."""
DEADLINE_S = 300.0
MAP_HUGETLB = 0x40000
MEMFD = "memory-backend-memfd,hugetlb=on,hugetlbsize=2M"


def words(backend: str, size: int = SIZE) -> list[str]:
    return [
        "qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults",
        "-m", f"{size >> 20}M", "-machine", "memory-backend=ram",
        "-object", f"{backend},id=ram,size={size},share=on",
    ]  # fmt: skip


@pytest.fixture
def pages() -> Iterator[None]:
    with huge_pages(SIZE // HUGE):
        yield


def until(what: Callable[[], bool], known: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end, known()
        time.sleep(0.01)


def rounds(machine: QemuMachine) -> int:
    return int.from_bytes(machine.arena.read(ROUNDS, 4), "little")


def pages_of(machine: QemuMachine) -> int:
    """Huge pages that its memory has taken of the pool."""
    return os.fstat(machine.arena.fd).st_blocks * 512 // HUGE


def goes_on(machine: QemuMachine) -> None:
    before = rounds(machine)
    until(lambda: rounds(machine) > before + 1, lambda: f"{rounds(machine)} rounds")


def dump_it(live: LiveDump, target: Path, settings: DumpSettings, fd: int, stores: int) -> None:
    """Not swept before the guest has met so many armed pages."""
    live.init(target, settings, reference=fd)
    try:
        live.start()
        until(lambda: live.counters().faults >= stores, live.counters)
        live.sweep()
        assert live.finish(DEADLINE_S, check=False) == "consistent", live.failure
    finally:
        live.release()


def different(target: Path, reference: Reference) -> int:
    with open_dump(target) as dump:
        assert verify_dump(dump).ok
        assert dump.meta["arming"] == "mprotect"
        return len(reference.different_pages(dump))


def test_dumps_are_exact_while_the_guest_stores(
    pages: None, busy_firmware: Path, tmp_path: Path
) -> None:
    """To all of its memory, in each format; every second time it is paused, and all is swept."""
    del pages
    with QemuMachine([*words(MEMFD), "-bios", str(busy_firmware)]) as machine:
        machine.start()
        goes_on(machine)
        taken, live = pages_of(machine), LiveDump(machine)
        for number in range(DUMPS):
            paused = number % 2 == 1
            machine.monitor.execute("stop" if paused else "cont")
            settings = DumpSettings(format=FORMATS[number % len(FORMATS)], sweep_rate=RATE)
            with closing(Reference(SIZE)) as reference:
                dump_it(live, tmp_path / "dump", settings, reference.fd, 0 if paused else 1)
                assert different(tmp_path / "dump", reference) == 0
            (tmp_path / "dump").unlink()
            counters = live.counters()
            assert counters.granule_size == HUGE and counters.lost == 0
            assert (counters.by_sweep if paused else counters.by_fault) > 0
            assert pages_of(machine) == taken, "the dump takes no page"
            machine.monitor.execute("cont")
            goes_on(machine)


@pytest.fixture
def hugetlbfs(pages: None, tmp_path: Path) -> Iterator[Path]:
    del pages
    where = tmp_path / "huge"
    where.mkdir()
    subprocess.run(["mount", "-t", "hugetlbfs", "none", str(where)], check=True, timeout=60)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True, timeout=60)


@pytest.mark.parametrize("format", FORMATS)
def test_pages_that_the_guest_has_not_touched(
    hugetlbfs: Path, tmp_path: Path, format: Format
) -> None:
    """Of a file that holds something already, and holes: QEMU maps neither, and the dump has
    both."""
    file, text, at = hugetlbfs / "ram", b"was there before QEMU", 5 * HUGE + 12345
    with open(file, "w+b", buffering=0) as made:
        made.truncate(SIZE)
        with mmap.mmap(made.fileno(), SIZE) as memory:
            memory[0] = 1  # QEMU reads the first page itself when it tells the registers
            memory[at : at + len(text)] = text
    backend = f"memory-backend-file,mem-path={file},prealloc=off"
    with QemuMachine(words(backend)) as machine, closing(Reference(SIZE)) as reference:
        taken, live = pages_of(machine), LiveDump(machine)
        live.init(tmp_path / "dump", DumpSettings(format=format), reference=reference.fd)
        try:
            live.start()
            assert live.read(at, len(text)) == text
            live.sweep()
            assert live.finish(DEADLINE_S, check=False) == "consistent", live.failure
            counters = live.counters()
        finally:
            live.release()
        assert pages_of(machine) == taken
        assert counters.holes > SIZE // HUGE // 2
        assert different(tmp_path / "dump", reference) == 0
        with open_dump(tmp_path / "dump") as dump:
            assert dump.read_arena(at, len(text)) == text


def test_a_granule_smaller_than_a_page_is_refused(pages: None, tmp_path: Path) -> None:
    """By one sentence, and the guest can be dumped with a larger one."""
    del pages
    with QemuMachine(words(MEMFD)) as machine:
        live = LiveDump(machine)
        with pytest.raises(UsageError, match=r"granule of 64 KiB .* page of the memory, 2 MiB"):
            live.init(tmp_path / "dump", DumpSettings(granule=64 << 10))
        assert not (tmp_path / "dump").exists()
        assert live.save(tmp_path / "dump", DumpSettings(granule=2 * HUGE)) == "consistent"
        assert live.counters().granule_size == 2 * HUGE


def settled(machine: QemuMachine) -> None:
    """Its firmware takes no more pages."""
    before = 0
    while before == 0 or pages_of(machine) != before:
        before = pages_of(machine)
        time.sleep(1)


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    """The pool is empty."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE | MAP_HUGETLB
    with mmap.mmap(-1, available() * HUGE, flags=flags):
        assert available() == 0
        yield


@pytest.mark.alone
def test_an_empty_pool(pages: None, tmp_path: Path) -> None:
    """Of a guest to which the kernel has promised nothing: a page that a dump took would end it."""
    del pages
    with QemuMachine(words(f"{MEMFD},reserve=off")) as machine:
        machine.start()
        settled(machine)
        taken, live = pages_of(machine), LiveDump(machine)
        with none_left():
            for format in FORMATS:
                settings = DumpSettings(format=format)
                assert live.save(tmp_path / format, settings) == "consistent"
                assert live.counters().holes > SIZE // HUGE // 2
        assert pages_of(machine) == taken
        assert machine.monitor.status() == "running"


def some_given_back(machine: QemuMachine) -> None:
    """Its memory takes pages of the pool, too, as the guest goes on."""
    most = 0

    def fewer() -> bool:
        nonlocal most
        now = pages_of(machine)
        most = max(most, now)
        return now < most

    until(fewer, lambda: f"{pages_of(machine)} pages")


@pytest.mark.skipif(not LONG, reason="`make test-qemu`; kernel_writes has what a disk does")
@pytest.mark.timeout(3600)
def test_a_kernel_on_huge_pages(guest_parts: Any, tmp_path: Path) -> None:
    """Before anything is swept it reads its disk into armed pages, and reports free ones, which
    QEMU gives back to the pool."""
    command, make_guest = guest_parts
    console, balloon = tmp_path / "console", "virtio-balloon-pci"
    size = 512 << 20
    line = [
        f"{word},free-page-reporting=on" if word == balloon else word
        for word in command(console, f"{size >> 20}M")
    ]
    line += ["-object", f"{MEMFD},id=ram,size={size},share=on", "-machine", "memory-backend=ram"]
    with huge_pages(size // HUGE), QemuMachine(line) as machine:
        guest, live = make_guest(machine, console), LiveDump(machine)
        machine.start()
        guest.boot()
        for format in FORMATS:
            with closing(Reference(size)) as reference:
                settings = DumpSettings(format=format, pool=size)
                live.init(tmp_path / "dump", settings, reference=reference.fd)
                try:
                    live.start()
                    reads = guest.reads()
                    some_given_back(machine)
                    guest.wait_for(lambda before=reads: guest.reads() > before)
                    live.sweep()
                    assert live.finish(DEADLINE_S) == "consistent", live.failure
                finally:
                    live.release()
                assert different(tmp_path / "dump", reference) == 0
            (tmp_path / "dump").unlink()
            guest.goes_on()
