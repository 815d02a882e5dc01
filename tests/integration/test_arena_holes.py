# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of an arena that was never written, was given back, or has advice of its own."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.settings import REAL_BACKENDS
from livedumpfs.units import PAGE_SIZE

MIB = 1 << 20


def test_discards_while_userfaultfd_is_prepared() -> None:
    """INIT of an arena's first dump makes the userfaultfd, and the view that waits for START:
    a thread that punches meanwhile neither fails nor leaves a page unprotected."""
    end, punched, errors = threading.Event(), threading.Semaphore(0), []

    def punch(arena: Arena) -> None:
        try:
            while not end.is_set():
                arena.discard(MIB, MIB)
                punched.release()
        except MachineError as error:
            errors.append(error)
            punched.release()

    size = 8 * MIB
    for _ in range(20):
        end.clear()
        with Arena(size) as arena, LiveDump(arena) as live:
            a = arena.array("u1", size)
            a[:] = 3
            thread = threading.Thread(target=punch, args=(arena,))
            thread.start()
            try:
                assert punched.acquire(timeout=300)
                live.init(None, DumpSettings(backend="uffd", pool=size))
            finally:
                end.set()
                thread.join(300)
            assert not errors, errors
            live.start()
            a[:] = 4
            assert live.read(MIB, MIB) == bytes(MIB)
            assert live.read(2 * MIB, 6 * MIB).count(3) == 6 * MIB


@pytest.mark.parametrize("format", ["elf", "raw"])
@pytest.mark.parametrize("arming", ["swap", "mprotect"])
@pytest.mark.parametrize("granule", [4096, 65536])
@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_a_sparse_arena_stays_sparse(
    tmp_path: Path, backend: str, granule: int, arming: str, format: str
) -> None:
    """INIT, START, SWEEP, RELEASE and reading allocate no hole; neither does the fault path."""
    size = 48 * MIB
    with Arena(size) as arena, LiveDump(arena) as live:
        a = arena.array("u1", size, name="a")
        written = range(3 * PAGE_SIZE, size, 3 * MIB + PAGE_SIZE)
        for at in written:
            a[at] = 1
        resident = arena.resident()
        assert resident == len(written) * PAGE_SIZE
        settings = DumpSettings(granule=granule, arming=arming, format=format, backend=backend)
        for _ in range(2):
            live.init(tmp_path / "dump", settings)
            live.start()
            for at in written:
                a[at] += 1  # these pages exist: the fault copies their granule, holes and all
            assert live.read(0, 8 * MIB).count(0) >= 8 * MIB - 3
            live.sweep()
            assert live.finish(300) == "consistent"
            live.release()
            assert arena.resident() == resident
        assert live.counters().holes > live.counters().granules // 2
        stored = os.stat(tmp_path / "dump").st_blocks * 512
        assert stored < resident * (granule // PAGE_SIZE) + 2 * MIB
        with open_dump(tmp_path / "dump") as dump:
            found = dump.array("a")
            assert np.flatnonzero(found).tolist() == list(written) and (found[found > 0] == 2).all()


def test_a_device_with_an_older_dump_shows_zeros_where_the_new_one_has_holes(
    loop_device: object,
) -> None:
    device = loop_device(48 * MIB)  # type: ignore[operator]
    with Arena(32 * MIB) as arena, LiveDump(arena) as live:
        a = arena.array("u1", 32 * MIB, name="a")
        a[:] = 0xAA
        assert live.save(device) == "consistent"
        arena.discard(4 * MIB, 20 * MIB)
        assert live.save(device, DumpSettings(force=True)) == "consistent"
        assert live.counters().holes > 0
    with open_dump(device) as dump:
        data = bytearray(32 * MIB)
        dump.read_stored(0, memoryview(data))
        assert data[4 * MIB : 24 * MIB].count(0) == 20 * MIB
        assert data[: 4 * MIB].count(0xAA) == 4 * MIB


@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_discard_during_a_dump_saves_first(tmp_path: Path, backend: str) -> None:
    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        a = arena.array("u1", 4 * MIB, name="a")
        a[:] = 9
        live.init(tmp_path / "dump", DumpSettings(backend=backend))
        live.start()
        arena.discard(MIB, MIB)
        assert arena.resident() == 3 * MIB
        assert live.read(MIB, MIB).count(9) == MIB
        a[: 3 * MIB] = 8  # what comes back after the discard is not the snapshot's
        assert live.read(0, 4 * MIB).count(9) == 4 * MIB
        live.sweep()
        assert live.finish(300) == "consistent"
        with open_dump(tmp_path / "dump") as dump:
            assert (dump.array("a") == 9).all()
        with pytest.raises(UsageError):
            arena.discard(1, PAGE_SIZE)


def vm_flags(address: int) -> set[str]:
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            start, end = (int(one, 16) for one in words[0].split("-"))
            inside = start <= address < end
        elif inside and words[0] == "VmFlags:":
            return set(words[1:])
    raise AssertionError(f"nothing is mapped at {address:#x}")


def test_what_was_advised_for_the_memory_stays_so_after_a_swap() -> None:
    """Out of core files, out of children: as QEMU has it for its guest's memory."""
    with Arena(4 << 20) as arena:
        address = arena.live.ctypes.data
        libc = ctypes.CDLL(None, use_errno=True)
        for advice in (mmap.MADV_DONTDUMP, mmap.MADV_DONTFORK):
            assert libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(arena.size), advice) == 0
        for _ in range(2):
            live = LiveDump(arena)
            live.init(None, DumpSettings(arming="swap"))
            live.start()
            assert {"dd", "dc"} <= vm_flags(address)
            live.release()
            assert {"dd", "dc"} <= vm_flags(address)
