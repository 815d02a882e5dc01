# SPDX-License-Identifier: GPL-2.0-or-later
"""What could change an arena's memory unseen while changes are tracked: it is kept out, or nothing
is left out of an increment."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import subprocess
import threading

import numpy as np
import pytest

from livedumpfs import DumpSettings
from livedumpfs.core.capi import ffi, lib
from livedumpfs.dump.core_dump import CoreFiles, core_config
from livedumpfs.errors import MachineError, StateError
from tests.fixtures.program_files import program_command
from tests.stores.tracked_memory import (
    COUNT,
    FULL,
    GRANULE,
    LIBC,
    PAGE,
    SETTINGS,
    SIZE,
    TrackedMemory,
)

MADV_REMOVE = 9


def descriptor(tracked: TrackedMemory) -> int:
    return int(lib.ldfs_arena_memfd(tracked.arena.handle))


def now_tracks(tracked: TrackedMemory) -> tuple[bool, str]:
    tracked.live.init(None, SETTINGS)
    tracked.live.release()
    found = tracked.live.increment
    return found.tracks, found.reason or ""


def test_others_are_kept_out(tracked: TrackedMemory) -> None:
    """From the first dump that tracks on: no new mapping, no write(2), no holes."""
    tracked.dump()
    fd = descriptor(tracked)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, SIZE)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, PAGE)
    path = f"/proc/self/fd/{fd}"
    with open(path, "r+b") as again, pytest.raises(PermissionError):
        mmap.mmap(again.fileno(), SIZE)
    assert LIBC.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(PAGE)) == -1
    assert tracked.advise(1, MADV_REMOVE) == errno.EPERM
    with mmap.mmap(fd, SIZE, prot=mmap.PROT_READ) as view:
        address = ctypes.c_void_p(np.frombuffer(view, np.uint8).ctypes.data)
        assert LIBC.mprotect(address, ctypes.c_size_t(PAGE), 3) == -1
    assert tracked.dump() == COUNT


@pytest.mark.parametrize("prot", [mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE])
def test_a_second_mapping(prot: int, tracked: TrackedMemory) -> None:
    """As it could write unseen, the memory is not sealed, and each dump reads all."""
    second = mmap.mmap(descriptor(tracked), SIZE, prot=prot)
    assert tracked.dump() == 0
    assert "something else has the memory mapped" in (tracked.live.increment.reason or "")
    if prot & mmap.PROT_WRITE:
        second[3 * GRANULE] ^= 1
    assert tracked.dump() == 0 and tracked.live.bases == []
    tracked.arena.discard(0, GRANULE)
    assert tracked.arena.resident() == FULL * GRANULE - GRANULE
    second.close()
    assert now_tracks(tracked) == (True, "")


def test_a_discard_of_a_hole_takes_no_memory(tracked: TrackedMemory) -> None:
    """Once the memory is sealed a discard stores zeros, but where there are some already."""
    tracked.dump()
    tracked.memory[(FULL + 2) * GRANULE] = 1
    before = tracked.arena.resident()
    tracked.arena.discard((FULL - 1) * GRANULE, 8 * GRANULE)
    assert tracked.arena.resident() == before
    assert not any(tracked.memory[(FULL - 1) * GRANULE : (FULL + 7) * GRANULE])
    assert tracked.dump() >= COUNT - 8


def duplicate(tracked: TrackedMemory, granule: int) -> ctypes.c_void_p:
    """One more mapping of a page, which a seal does not hinder: mremap(2) of a length of 0."""
    LIBC.mremap.restype = ctypes.c_void_p
    place = ctypes.c_void_p(tracked.address(granule))
    made = ctypes.c_void_p(LIBC.mremap(place, ctypes.c_size_t(0), ctypes.c_size_t(PAGE), 1))
    ctypes.memset(made, 0x55, 10)
    return made


def test_a_mapping_after_the_seal(tracked: TrackedMemory) -> None:
    """Before INIT, between INIT and START, and under the dump: what it has stored is in the dump,
    or in the next one."""
    assert (tracked.dump(), tracked.dump()) == (0, COUNT)
    made = duplicate(tracked, 3)
    assert tracked.dump() == 0 and tracked.live.bases == []
    assert "something else has the memory mapped" in (tracked.live.increment.reason or "")
    LIBC.munmap(made, ctypes.c_size_t(PAGE))
    assert (tracked.dump(), tracked.dump()) == (0, COUNT)
    begun, views = tracked.live.start, []

    def start() -> None:
        views.append(duplicate(tracked, 4))
        begun()

    tracked.live.start = start  # type: ignore[method-assign]
    assert tracked.dump() == 0
    tracked.live.start = begun  # type: ignore[method-assign]
    assert tracked.live.bases == []
    LIBC.munmap(views[0], ctypes.c_size_t(PAGE))
    assert (tracked.dump(), tracked.dump()) == (0, COUNT)


def test_memory_that_was_there_before_the_arena() -> None:
    """Whether others have it cannot be known: a child by fork, for one."""
    fd = os.memfd_create("adopted", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    settings = DumpSettings(track=True, granule=GRANULE, backend="sigsegv")
    with mmap.mmap(fd, SIZE) as view:
        arena, dump = ffi.new("ldfs_arena **"), ffi.new("ldfs_dump **")
        address = ffi.from_buffer(view)
        assert lib.ldfs_arena_adopt(address, SIZE, fd, arena) == 0
        config, _extents = core_config(settings, None, CoreFiles())
        assert lib.ldfs_dump_init(arena[0], config, dump) == 0
        counters = ffi.new("ldfs_counters *")
        lib.ldfs_dump_counters(dump[0], counters)
        assert counters.tracking == lib.LDFS_TRACK_UNKNOWN
        assert lib.ldfs_dump_release(dump[0]) == lib.ldfs_dump_free(dump[0]) == 0
        lib.ldfs_arena_destroy(arena[0])
        os.pwrite(fd, b"not sealed", 0)
        ffi.release(address)
    os.close(fd)


def test_a_mapping_of_another_process(tracked: TrackedMemory) -> None:
    path = f"/proc/{os.getpid()}/fd/{descriptor(tracked)}"
    words = program_command(__file__, "maps_a_file.py", path)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"mapped\n"
        assert now_tracks(tracked)[0] is False
        other.communicate()
    assert now_tracks(tracked) == (True, "")


def test_looking_for_others_ends_no_process(tracked: TrackedMemory) -> None:
    """What opens the file at that moment breaks a lease, of which this process is told by a
    signal."""
    fd, ends, seen = descriptor(tracked), threading.Event(), []

    def opens() -> None:
        while not ends.is_set():
            os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_NONBLOCK))

    def open_often() -> None:
        while not ends.is_set():
            try:
                opens()
            except BlockingIOError:
                seen.append(1)

    before = signal.getsignal(signal.SIGIO)
    thread = threading.Thread(target=open_often)
    thread.start()
    try:
        for _ in range(50):
            now_tracks(tracked)
    finally:
        ends.set()
        thread.join()
    assert signal.getsignal(signal.SIGIO) is before
    assert now_tracks(tracked) == (True, "")


def test_a_dump_is_a_base_only_if_all_of_it_went_out(tracked: TrackedMemory) -> None:
    tracked.live.init(None, SETTINGS)
    tracked.live.start()
    tracked.live.release()
    assert tracked.live.bases == []
    with pytest.raises(StateError):
        tracked.live.sweep()
    with pytest.raises((MachineError, OSError)):
        tracked.live.init("/nowhere/at/all", SETTINGS)
    assert tracked.live.bases == []
