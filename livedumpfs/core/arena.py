# SPDX-License-Identifier: GPL-2.0-or-later
"""The arena: memory that can be dumped while it is written (guest RAM, in the words of emulators).
Programs use it as numpy arrays."""

from __future__ import annotations

import errno
import os
import resource
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from livedumpfs.core.array_space import ArraySpace, space_for
from livedumpfs.core.capi import CData, check, ffi, lib
from livedumpfs.core.receiving import FillSource, Receiving, fill
from livedumpfs.core.saved_arena import SavedArena, inconsistent_arena, opened
from livedumpfs.core.shared_array import SharedArray
from livedumpfs.core.state import AnyState, leaves
from livedumpfs.errors import MachineError, UsageError, os_cause
from livedumpfs.huge import HUGE_SIZE, THP_SIZE, Huge, check_huge, why_none
from livedumpfs.units import HOST_PAGE, PAGE_SIZE, format_size, parse_size
from livedumpfs.writer_lock import WriterLock

_COPY = 4 << 20
_MOST = (2**63 - 1) // 8 // HOST_PAGE * HOST_PAGE
_VIEWS = 4
_VIEW_ALIGNMENT = 1 << 30
"""As in native/memory/views.c: the most bytes of an arena, the number of address ranges (views)
that each arena takes, and their alignment in bytes."""


_PAGES: Final[dict[str | None, int]] = {
    None: lib.LDFS_PAGES_SMALL,
    "thp": lib.LDFS_PAGES_THP,
    "2M": lib.LDFS_PAGES_2M,
}


def _not_made(size: int, huge: str | None, error: int) -> MachineError:
    cause, hint = why_none(huge, size, error) or _why_not(size, error, huge)
    return MachineError(
        f"cannot make an arena of {format_size(size)}: {cause}", errno=error, hint=hint
    )


def _why_not(size: int, error: int, huge: str | None) -> tuple[str, str]:
    """The cause, and the hint what to do."""
    match error:
        case errno.EINVAL:
            return f"it must have from one page to {format_size(_MOST)}", "choose another size"
        case errno.ENOMEM:
            return _why_no_addresses(size, 1 if huge == "2M" else _VIEWS)
        case errno.EFBIG:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            return (
                f"its memory is a file, and files may have {format_size(limit)} at the most",
                "raise the limit: ulimit -f",
            )
        case errno.EMFILE:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return f"this process has {limit} open files, as many as it may", "see ulimit -n"
        case errno.ENFILE if _files_left():
            return f"this process has {lib.LDFS_MAX_ARENAS} arenas", "close one, and its arrays"
        case errno.ENFILE:
            return "the system has as many open files as it may", "see sysctl fs.file-max"
        case errno.ENOSYS:
            return "the kernel lacks what its views need", "Linux 5.14 or newer"
        case errno.EACCES | errno.EPERM:
            return f"memfd_create: {os_cause(error)}", "see sysctl vm.memfd_noexec, or seccomp"
    return os_cause(error), "see ulimit -a"


def _why_no_addresses(size: int, views: int) -> tuple[str, str]:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    needed = format_size(views * size + _VIEW_ALIGNMENT)
    if limit == resource.RLIM_INFINITY:
        return (
            f"no room for its views, {needed} of addresses",
            "choose a smaller size, or see vm.max_map_count",
        )
    with open("/proc/self/statm", encoding="ascii") as file:
        left = max(0, limit - int(file.read().split()[0]) * HOST_PAGE)
    return (
        f"its views take {needed} of addresses, and ulimit -v leaves {format_size(left)}",
        "raise it: addresses cost no memory",
    )


def _files_left() -> bool:
    try:
        os.close(os.memfd_create("livedumpfs-probe"))
    except OSError:
        return False
    return True


def wanted_size(size: int | str) -> int:
    """Bytes, from bytes or text such as "1GiB". UsageError: not a size."""
    try:
        return parse_size(size)
    except ValueError as error:
        raise UsageError(str(error)) from None


class Arena(ArraySpace):
    """`size` bytes of memory, all holes at first, whose writers can go on during a dump.

    Arrays made by `array` are ordinary numpy arrays over the live view. They keep the memory alive,
    also after close(). During a dump the memory is write-protected: the first store into a granule
    causes a page fault, and its old bytes are saved before the store happens (copy-on-write).
    Writes that are no store of this process are not caught:

    - system calls (`readinto`, `recv_into`) get EFAULT from protected memory: open it by
      `receiving`, or use `fill`, or read elsewhere and copy;
    - direct I/O in flight across START, and stores of another process that maps the memory, change
      it unseen: quiesce must exclude them.

    A forked child (multiprocessing) can read and write the arrays, too. What the child writes is
    private to it: neither its parent nor a dump sees it. Pages that the child has not written show
    the parent's memory as it is now, not as it was at the fork. Copy what must not change. A child
    that is no fork (spawn, forkserver) reads what `shared` gives it.

    `huge` is what its memory consists of, which decides how fast programs with much memory run:

    - None: the kernel's pages, of 4 KiB, or on arm64 of 4, 16 or 64 KiB.
    - "thp": transparent huge pages, which the kernel must allow (`shmem_enabled`). Memory is taken
      2 MiB at a time (32 or 512 MiB where pages have 16 or 64 KiB). A dump splits the mapping of
      those that are stored to meanwhile (backends `uffd` and `sigbus`, and the sweep of a
      `kdump`, that of all); after its RELEASE they are whole again.
    - "2M": pages of 2 MiB from the system's pool (`vm.nr_hugepages`), all of them taken at once.
      A dump saves each as a whole: a granule is 2 MiB or more, arming is `mprotect`, and INIT sets
      both. `discard` writes zeros, and gives nothing back. A child can write where the pool has as
      many pages again, for each child while it lives; otherwise it can only read. A child's own
      child has no view.
    """

    def __init__(self, size: int | str, huge: Huge | None = None) -> None:
        """`size`: bytes or text such as "1GiB"; rounded up to whole pages, but with `huge` "2M",
        where it must be a multiple of 2 MiB; "thp" needs one huge page at least.

        UsageError: not a size, or not with these pages. MachineError: EOPNOTSUPP (the kernel gives
        no such pages), ENOSPC (the pool has too few huge pages that are free), EINVAL (a size that
        no arena can have), ENOMEM (no addresses left: ulimit -v), EFBIG (ulimit -f), EMFILE (ulimit
        -n), ENFILE (too many arenas, or too many open files in the system), ENOSYS (kernel older
        than Linux 5.14).
        """
        super().__init__()
        wanted = wanted_size(size)
        check_huge(huge, wanted)
        self.size = -(-wanted // HOST_PAGE) * HOST_PAGE
        self.huge = huge
        """The kind of its huge pages; None: it has small ones."""
        out = ffi.new("ldfs_arena **")
        possible = 0 < self.size <= _MOST  # a larger size may not fit the core's integer type
        rc = lib.ldfs_arena_create_of(self.size, _PAGES[huge], out) if possible else -errno.EINVAL
        if rc:
            raise _not_made(self.size, huge, -rc)
        self._handle: CData = ffi.gc(out[0], lib.ldfs_arena_destroy)
        self.live: npt.NDArray[np.uint8] = np.frombuffer(self._live_buffer(), dtype=np.uint8)
        """The whole live view, writable: one byte an element."""
        self.page_size = int(lib.ldfs_arena_page_size(self._handle))
        """The least granule of its dumps, in bytes."""
        self.receivers = WriterLock()
        """What `receiving` and `fill` hold. ThreadMachine waits for it in each START."""

    def _live_buffer(self) -> Any:
        """The live view as a buffer. The arena stays mapped as long as a reference to it exists."""
        handle = self._handle
        address = ffi.cast("char *", lib.ldfs_arena_live(handle))
        keeper = ffi.gc(address, lambda _, arena=handle: None)
        return ffi.buffer(keeper, self.size)

    @property
    def address(self) -> int:
        """Address of the live view in this process; never changes."""
        return int(ffi.cast("uintptr_t", lib.ldfs_arena_live(self._open())))

    def read(self, offset: int, length: int) -> bytes:
        """Live bytes [offset, offset+length). Reading a hole does not allocate it. UsageError: the
        range is not inside the arena."""
        out = bytearray(length)
        rc = lib.ldfs_arena_read(self._open(), offset, ffi.from_buffer(out), length)
        self._check_range(rc, "read", offset, length)
        return bytes(out)

    def writable(self, offset: int, length: int) -> None:
        """Make [offset, offset+length) safe for system calls to write. During a dump its old bytes
        are saved first. This holds until the next START, which `receiving` keeps away. UsageError:
        outside the arena. MachineError (ECHILD): in a forked child, where any memory of the arena
        is safe."""
        rc = lib.ldfs_arena_writable(self._open(), offset, length)
        self._check_range(rc, "open", offset, length)

    def offset_of(self, array: npt.NDArray[Any]) -> int:
        """Where the array begins, in bytes from the arena's start. UsageError: it does not lie in
        the arena as one piece, in C order."""
        place = array.__array_interface__["data"][0] - self.address
        if not 0 <= place <= self.size - array.nbytes:
            raise UsageError("the array does not lie in the arena", hint="from_array copies it")
        if not array.flags.c_contiguous:
            raise UsageError("the array is no single piece of memory in C order")
        return int(place)

    def receiving(self, array: npt.NDArray[Any]) -> Receiving:
        """A block in which system calls may write the array (or a part of it: `x[10:20]`). ::

            with arena.receiving(x) as view:  # a memoryview of its bytes
                file.readinto(view)

        During a dump its old bytes are saved first, all of them, and START waits for the end of the
        block, as for a WriterLock's: so wait for data (select, poll) before it. UsageError: the
        array does not lie in the arena as one piece, or is read-only. MachineError (EFAULT): a
        system call in the block was to write to other memory of the arena.
        """
        return Receiving(self, array)

    def fill(self, array: npt.NDArray[Any], source: FillSource) -> None:
        """Read the array's bytes, all of them, from where the source is. `source`: a path, an open
        binary file, a pipe, a socket. np.fromfile in the arena is::

            arena.fill(arena.empty(1000, "f4", name="x"), "x.bin")

        A file is read straight into the array, any other source by a buffer, so that no START waits
        for its other end. UsageError: as `receiving`; the source ends before the array is full,
        which has what came then. OSError: it cannot be read.
        """
        fill(self, array, source)

    def shared(self, array: npt.NDArray[Any]) -> SharedArray:
        """The array for other processes that multiprocessing starts, by spawn or forkserver too:
        give it to Process(args=...) or a Pool's initializer. There its `array` is the arena's
        memory as it is now, read-only. UsageError: as `offset_of`."""
        return SharedArray(lib.ldfs_arena_memfd(self._open()), array, self.offset_of(array))

    def discard(self, offset: int, length: int) -> None:
        """Turn whole pages of the kernel's into holes, or fill them with zeros where huge pages
        are "2M"; during a dump their old bytes are saved first. UsageError: outside the arena, or
        not whole pages."""
        rc = lib.ldfs_arena_discard(self._open(), offset, length)
        self._check_range(rc, "discard", offset, length)

    def _check_range(self, rc: int, doing: str, offset: int, length: int) -> None:
        where = f"{doing} {length} bytes at offset {offset} of an arena of {self.size}"
        check(rc, where, UsageError if rc == -22 else MachineError)

    def resident(self) -> int:
        """Bytes that are allocated, i.e. are not holes."""
        return check(lib.ldfs_arena_resident(self._open()), "measure the arena", MachineError)

    def _open(self) -> CData:
        if self._handle is None:
            raise UsageError("the arena is closed")
        return self._handle

    @property
    def handle(self) -> CData:
        """The core's `ldfs_arena *`, for livedumpfs.dump and livedumpfs.machines."""
        return self._open()

    def close(self) -> None:
        """Give up the memory. It is unmapped when the last array over it and the last dump of it
        are gone. Harmless when done twice."""
        self._handle = None
        self._arrays = {}
        self.live = np.zeros(0, dtype=np.uint8)

    @classmethod
    def of(
        cls, state: AnyState, room: int | str = 0, huge: Huge | None = None
    ) -> tuple[Self, AnyState]:
        """An arena that is just large enough for the state, and `room` bytes more (or text such as
        "1GiB"); and the state in it, as `place` says. ::

            arena, now = Arena.of({"heat": np.zeros((1000, 1000)), "step": 0})
        """
        spare = wanted_size(room) if room else 0
        wanted = max(1, space_for(value for _, value in leaves(state))) + spare
        unit = {"thp": THP_SIZE, "2M": HUGE_SIZE}.get(huge or "", HOST_PAGE)
        arena = cls(-(-wanted // unit) * unit, huge)
        try:
            return arena, arena.place(state)
        except BaseException:
            arena.close()
            raise

    @classmethod
    def load(
        cls,
        dump: SavedArena | str | os.PathLike[str],
        *,
        check: bool = True,
        huge: Huge | None = None,
    ) -> Self:
        """A new arena with the memory of a dump, and its named arrays in `arrays`.

        `dump`: from livedumpfs.open_dump(path) or livedumpfs.open_arrays(path), or the path: of
        arrays where it ends with .zarr or .icechunk. `check`: refuse a dump that is not consistent.
        `huge`: as of a new arena. Pages of zeros stay holes, where there are any. InconsistentDump
        (OSError): the dump is torn or incomplete; with check=False the memory that it lacks is
        zeros. OSError: the dump's target cannot be read.
        """
        if isinstance(dump, (str, os.PathLike)):
            with opened(os.fspath(dump)) as found:
                return cls.load(found, check=check, huge=huge)
        missing = dump.missing()
        if check and dump.verdict != "consistent":
            raise inconsistent_arena(dump, missing)
        arena = cls(dump.arena_size, huge)
        buffer = memoryview(bytearray(min(_COPY, dump.arena_size)))
        begin = 0
        for first, end in (*missing, (dump.arena_size, dump.arena_size)):
            for offset in range(begin, first, _COPY):
                piece = buffer[: min(_COPY, first - offset)]
                dump.read_into(offset, piece)
                arena._restore(offset, piece)
            begin = end
        for a in dump.arrays:
            arena._place(a.dtype, a.shape, a.offset, a.name, a.dims)
            arena._used = max(arena._used, a.offset + arena._arrays[a.name].nbytes)
        return arena

    def _restore(self, offset: int, data: memoryview) -> None:
        pages = np.frombuffer(data, dtype=np.uint8).reshape(-1, PAGE_SIZE)
        here = self.live[offset : offset + len(data)].reshape(-1, PAGE_SIZE)
        filled = pages.any(axis=1)
        here[filled] = pages[filled]
