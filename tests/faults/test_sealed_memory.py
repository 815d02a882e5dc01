# SPDX-License-Identifier: GPL-2.0-or-later
"""A memfd that another program seals, or that we were given read-only: a store must never meet a
page that cannot be made writable again."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aftermath import expect_footprint, footprint, unharmed

from livedumpfs import Arena, LiveDump
from livedumpfs.core.capi import ffi, lib
from livedumpfs.errors import MachineError

SIZE = 1 << 20
SWAP, MPROTECT = lib.LDFS_ARM_SWAP, lib.LDFS_ARM_MPROTECT
SEALS = {"write": fcntl.F_SEAL_WRITE, "future": 0x10, "shrink": fcntl.F_SEAL_SHRINK}


class Adopted:
    """Memory that was there before its arena, as a QEMU's."""

    def __init__(self, seal: str | None = None, read_only: bool = False) -> None:
        self.fd = os.memfd_create("adopted", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, SIZE)
        self.live = mmap.mmap(self.fd, SIZE)
        if seal:
            self.seal(seal)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.live))
        given = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY) if read_only else self.fd
        out = ffi.new("ldfs_arena **")
        assert lib.ldfs_arena_adopt(ffi.cast("void *", address), SIZE, given, out) == 0
        self.arena = out[0]
        if given != self.fd:
            os.close(given)

    def seal(self, kind: str) -> None:
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS[kind])

    def dump(self, arming: int, between: Callable[[], object] = lambda: None) -> int:
        """One dump in memory, and a store to each page; the answer of INIT."""
        config = ffi.new("ldfs_dump_config *")
        config.granule_size, config.pool_size = 4096, SIZE
        config.stall_deadline_ns, config.arming = 10**10, arming
        config.target_fd = config.table_fd = config.uffd_fd = -1
        out: Any = ffi.new("ldfs_dump **")
        rc = int(lib.ldfs_dump_init(self.arena, config, out))
        if rc:
            return rc
        before = bytes(self.live)
        between()
        assert lib.ldfs_dump_start(out[0], ffi.NULL, 10**9) == 0
        for at in range(0, SIZE, 4096):
            self.live[at] = (before[at] + 1) % 256
        found = ffi.new("char[]", SIZE)
        assert lib.ldfs_dump_read(out[0], 0, found, SIZE) == 0
        assert ffi.buffer(found, SIZE)[:] == before
        assert lib.ldfs_dump_release(out[0]) == 0 and lib.ldfs_dump_free(out[0]) == 0
        self.live[5] = 1
        return 0


@contextmanager
def adopted(seal: str | None = None, *, read_only: bool = False) -> Iterator[Adopted]:
    """Whatever was refused or sealed, the next dump is right, and nothing is left of any."""
    before = footprint()
    memory = Adopted(seal, read_only)
    try:
        yield memory
        assert memory.dump(MPROTECT) == 0
    finally:
        assert lib.ldfs_arena_destroy(memory.arena) == 0
        os.close(memory.fd)
        memory.live.close()
    expect_footprint(before)


def test_our_own_memory_that_is_sealed() -> None:
    """Tracking changes seals it, too, so it can be sealed: the next dump is right, or refused."""
    with Arena(SIZE) as arena, LiveDump(arena) as live:
        memfd = lib.ldfs_arena_memfd(arena.handle)
        with pytest.raises(OSError, match="busy"):
            fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, SEALS["write"])
        with unharmed(live):
            fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, SEALS["shrink"])
    with Arena(SIZE) as arena, LiveDump(arena) as live:
        memfd = lib.ldfs_arena_memfd(arena.handle)
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, SEALS["future"])
        with pytest.raises(MachineError, match="sealed against writing"):
            live.init(None)
        arena.array("u1", 16)[:] = 5  # it can be written as before


def test_memory_sealed_before_init_is_refused_where_it_matters() -> None:
    """A new view of it could be armed, and never opened: the machine would fault for ever. The
    view that was there before the seal can be armed in place."""
    with adopted("future") as memory:
        assert memory.dump(SWAP) == -errno.EPERM
        assert memory.dump(MPROTECT) == 0
        assert memory.dump(SWAP) == -errno.EPERM
        assert memory.dump(MPROTECT) == 0


def test_a_read_only_descriptor_is_refused_where_it_matters() -> None:
    with adopted(read_only=True) as memory:
        assert memory.dump(SWAP) == -errno.EPERM
        assert memory.dump(MPROTECT) == 0


@pytest.mark.parametrize("arming", [SWAP, MPROTECT], ids=["swap", "mprotect"])
@pytest.mark.parametrize("kind", ["future", "shrink"])
def test_memory_sealed_between_init_and_start(kind: str, arming: int) -> None:
    """The views are there already; later dumps use them again."""
    with adopted() as memory:
        assert memory.dump(arming, lambda: memory.seal(kind)) == 0
        assert memory.dump(arming) == 0
        assert memory.dump(arming) == 0


def test_memory_that_is_mapped_cannot_be_sealed_against_all_writes() -> None:
    with adopted() as memory:
        for arming in (SWAP, MPROTECT):

            def seal() -> None:
                with pytest.raises(OSError) as caught:
                    memory.seal("write")
                assert caught.value.errno == errno.EBUSY

            assert memory.dump(arming, seal) == 0
