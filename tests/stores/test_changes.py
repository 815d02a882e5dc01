# SPDX-License-Identifier: GPL-2.0-or-later
"""Which granules an increment leaves out: none that was written to, whatever wrote it. The memory
is written through every path there is, and each image is compared with a copy that was made in the
pause."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs import DumpSettings, LiveDump
from livedumpfs.targets import Target, adopt_target
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

DEADLINE = 300.0
MADV_PAGEOUT = 21


@contextlib.contextmanager
def sink() -> Iterator[Target]:
    """A pipe whose bytes go nowhere."""
    read_end, end = os.pipe()

    def take() -> None:
        while os.read(read_end, 1 << 16):
            pass

    taker = threading.Thread(target=take)
    taker.start()
    try:
        yield adopt_target(end, "pipe")
    finally:
        taker.join(DEADLINE)
        os.close(read_end)


# --------------------------------------------------------------------- the paths


def by_a_store(tracked: TrackedMemory, granule: int) -> None:
    tracked.at(granule)[0] ^= 1


def by_a_thread(tracked: TrackedMemory, granule: int) -> None:
    thread = threading.Thread(target=by_a_store, args=(tracked, granule))
    thread.start()
    thread.join()


def by_a_system_call(tracked: TrackedMemory, granule: int) -> None:
    """Which is not announced."""
    with open("/dev/urandom", "rb", buffering=0) as source:
        assert source.readinto(tracked.at(granule, 2 * PAGE)) == 2 * PAGE


def by_a_socket(tracked: TrackedMemory, granule: int) -> None:
    one, other = os.pipe()
    os.write(other, b"socket or pipe")
    assert os.readv(one, [tracked.at(granule)]) == 14
    os.close(one)
    os.close(other)


def by_direct_io(tracked: TrackedMemory, granule: int) -> None:
    file = Path(tracked.place).parent / "direct"
    file.write_bytes(os.urandom(PAGE))
    try:
        fd = os.open(file, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:  # a tmpfs of old has none
        assert error.errno == errno.EINVAL
        by_a_system_call(tracked, granule)
        return
    begin = granule * GRANULE
    assert os.preadv(fd, [tracked.memory[begin : begin + PAGE]], 0) == PAGE
    os.close(fd)


def by_a_debugger(tracked: TrackedMemory, granule: int) -> None:
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(tracked.address(granule))
        memory.write(b"debugger")


def by_another_process(tracked: TrackedMemory, granule: int) -> None:
    """process_vm_writev(2)."""
    text = ctypes.create_string_buffer(b"another")
    here = (ctypes.c_uint64 * 2)(ctypes.addressof(text), 7)
    there = (ctypes.c_uint64 * 2)(tracked.address(granule), 7)
    assert LIBC.process_vm_writev(os.getpid(), here, 1, there, 1, 0) == 7


def by_announcement(tracked: TrackedMemory, granule: int) -> None:
    """What holds pages of it since before START may write them unseen: so it is announced."""
    tracked.arena.writable(granule * GRANULE + 5 * PAGE + 9, 2)


def by_a_discard(tracked: TrackedMemory, granule: int) -> None:
    tracked.arena.discard(granule * GRANULE, GRANULE // 2)
    assert not any(tracked.memory[granule * GRANULE : granule * GRANULE + GRANULE // 2])


def by_a_store_that_is_paged_out(tracked: TrackedMemory, granule: int) -> None:
    """What the kernel takes out of the page tables has no mark that could come back."""
    by_a_store(tracked, granule)
    assert tracked.advise(granule, mmap.MADV_DONTNEED) == 0
    tracked.advise(granule, MADV_PAGEOUT)
    assert tracked.at(granule)[0] >= 0


PATHS = [
    by_a_store,
    by_a_thread,
    by_a_system_call,
    by_a_socket,
    by_direct_io,
    by_a_debugger,
    by_another_process,
    by_announcement,
    by_a_discard,
    by_a_store_that_is_paged_out,
]


def through_all(tracked: TrackedMemory, first: int) -> int:
    for number, path in enumerate(PATHS):
        path(tracked, first + number)
    return len(PATHS)


def test_through_every_path(tracked: TrackedMemory) -> None:
    """Into data and into holes; before INIT, from INIT to START, and under the dump itself. What no
    path has written to is left out."""
    assert tracked.dump() == 0
    assert tracked.dump() == COUNT
    changed = through_all(tracked, 0) + through_all(tracked, FULL)
    assert tracked.dump() == COUNT - changed + 1  # a discard of a hole stores nothing
    begun = tracked.live.start

    def start() -> None:
        through_all(tracked, 10)
        begun()

    tracked.live.start = start  # type: ignore[method-assign]
    assert tracked.dump() == COUNT - len(PATHS)
    tracked.live.start = begun  # type: ignore[method-assign]
    assert tracked.dump() == COUNT

    def under_the_dump() -> None:
        """System calls need an announcement there."""
        tracked.arena.writable(20 * GRANULE, len(PATHS) * GRANULE)
        through_all(tracked, 20)

    tracked.dump(under_the_dump)
    assert tracked.dump() == COUNT - len(PATHS)
    assert tracked.dump() == COUNT


def test_what_does_not_change_it(tracked: TrackedMemory) -> None:
    """Loads, a child's stores, protection to and fro, page tables that are dropped."""
    tracked.dump()
    child = os.fork()
    if not child:
        tracked.at(2)[0] ^= 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert bytes(tracked.memory[:SIZE])
    assert tracked.advise(4, mmap.MADV_DONTNEED) == 0
    address = ctypes.c_void_p(tracked.address(5))
    for rights in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
        assert LIBC.mprotect(address, ctypes.c_size_t(PAGE), rights) == 0
    # Loads have filled holes with zeros, which may count as written.
    assert tracked.dump() >= FULL


def test_steps_that_go_wrong(tracked: TrackedMemory) -> None:
    """A START that fails, a dump that is given up under way, and one in memory: what was stored to
    before, between and after them counts."""
    tracked.dump()
    by_a_store(tracked, 1)
    stopped = LiveDump(tracked.arena, quiesce=lambda: 1 / 0)
    stopped.init(None, SETTINGS)
    by_a_store(tracked, 2)
    with pytest.raises(ZeroDivisionError):
        stopped.start()
    by_a_store(tracked, 3)
    stopped.release()
    by_a_store(tracked, 4)
    assert tracked.dump() == COUNT - 4
    for sweep in (False, True):
        with sink() as target:
            tracked.live.init(target, SETTINGS)
            by_a_store(tracked, 5)
            tracked.live.start()
            by_a_store(tracked, 6)
            if sweep:
                tracked.live.sweep()
            by_a_store(tracked, 7)
            tracked.live.release()
        by_a_store(tracked, 8)
    tracked.live.init(None, SETTINGS)
    tracked.live.start()
    by_a_store(tracked, 9)
    tracked.live.release()
    assert tracked.dump() == COUNT - 5
    assert tracked.dump() == COUNT


def test_a_dump_that_does_not_track_ends_it(tracked: TrackedMemory) -> None:
    tracked.dump()
    assert len(tracked.live.bases) == 1
    tracked.dump(settings=DumpSettings(granule=GRANULE))
    assert tracked.live.bases == [] and not tracked.live.increment.tracks
    assert (tracked.dump(), tracked.dump()) == (0, COUNT)


def test_an_unknown_base(tracked: TrackedMemory) -> None:
    tracked.dump()
    with sink() as target:
        tracked.live.init(target, SETTINGS, since=bytes(range(16)))
        tracked.live.start()
        tracked.live.sweep()
        assert tracked.live.finish() == "consistent"
        found = tracked.live.increment
        tracked.live.release()
    assert (found.omitted, found.since) == (0, b"")
    assert found.reason == "what has changed since the base is not known (any more)"
