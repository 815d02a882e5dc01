# SPDX-License-Identifier: GPL-2.0-or-later
"""The arena: memory that can be dumped while it is written (guest RAM, in the words of emulators).
Programs use it as numpy arrays."""

from __future__ import annotations

import errno
import math
import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from livedumpfs.closing import Closing
from livedumpfs.core.capi import CData, check, ffi, lib
from livedumpfs.errors import InconsistentDump, MachineError, UsageError, WrongType, os_cause
from livedumpfs.units import PAGE_SIZE, format_size, parse_size

_ALIGNMENT = 64
_COPY = 4 << 20
_MOST = (2**63 - 1) // 8 // PAGE_SIZE * PAGE_SIZE
_VIEWS = 4
_VIEW_ALIGNMENT = 1 << 30
"""As in native/memory/views.c: the most bytes of an arena, the number of address ranges (views)
that each arena takes, and their alignment in bytes."""


@dataclass(frozen=True)
class ArrayInfo:
    """The place of a named array in the arena; `offset` in bytes from the arena's start."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    def describe(self) -> dict[str, object]:
        """The array in JSON types, for the dump's notes. A structured dtype is written as numpy's
        `descr`, any other as its `str`."""
        plain = self.dtype.names is None
        return {
            "name": self.name,
            "dtype": self.dtype.str if plain else self.dtype.descr,
            "shape": list(self.shape),
            "offset": self.offset,
        }


class SavedArray(Protocol):
    """A named array as a dump lists it."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def offset(self) -> int: ...


class SavedArena(Protocol):
    """What Arena.load reads: an open dump (livedumpfs.dumpfile.open_dump)."""

    @property
    def path(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def granule_size(self) -> int: ...
    @property
    def arena_size(self) -> int: ...
    @property
    def arrays(self) -> Sequence[SavedArray]: ...
    def read_into(self, offset: int, view: memoryview) -> None: ...
    def missing(self) -> Sequence[tuple[int, int]]: ...


def _not_made(size: int, error: int) -> MachineError:
    cause, hint = _why_not(size, error)
    return MachineError(
        f"cannot make an arena of {format_size(size)}: {cause}", errno=error, hint=hint
    )


def _why_not(size: int, error: int) -> tuple[str, str]:
    """The cause, and the hint what to do."""
    match error:
        case errno.EINVAL:
            return f"it must have from one page to {format_size(_MOST)}", "choose another size"
        case errno.ENOMEM:
            return _why_no_addresses(size)
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


def _why_no_addresses(size: int) -> tuple[str, str]:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    needed = format_size(_VIEWS * size + _VIEW_ALIGNMENT)
    if limit == resource.RLIM_INFINITY:
        return (
            f"no room for its views, {needed} of addresses",
            "choose a smaller size, or see vm.max_map_count",
        )
    with open("/proc/self/statm", encoding="ascii") as file:
        left = max(0, limit - int(file.read().split()[0]) * PAGE_SIZE)
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


class Arena(Closing):
    """`size` bytes of memory, all holes at first, whose writers can go on during a dump.

    Arrays made by `array` are ordinary numpy arrays over the live view. They keep the memory alive,
    also after close(). During a dump the memory is write-protected: the first store into a granule
    causes a page fault, and its old bytes are saved before the store happens (copy-on-write).
    Writes that are no store of this process are not caught:

    - system calls (`readinto`, `recv_into`, `np.fromfile`) get EFAULT from protected memory: call
      `writable` first, or read elsewhere and copy;
    - direct I/O in flight across START, and stores of another process that maps the memory, change
      it unseen: quiesce must exclude them.

    A forked child (multiprocessing) can read and write the arrays, too. What the child writes is
    private to it: neither its parent nor a dump sees it. Pages that the child has not written show
    the parent's memory as it is now, not as it was at the fork. Copy what must not change.
    """

    def __init__(self, size: int | str) -> None:
        """`size`: bytes or text such as "1GiB"; rounded up to whole pages.

        UsageError: not a size. MachineError: EINVAL (a size that no arena can have), ENOMEM (no
        addresses left: ulimit -v), EFBIG (ulimit -f), EMFILE (ulimit -n), ENFILE (too many arenas,
        or too many open files in the system), ENOSYS (kernel older than Linux 5.14).
        """
        try:
            wanted = parse_size(size)
        except ValueError as error:
            raise UsageError(str(error)) from None
        self.size = -(-wanted // PAGE_SIZE) * PAGE_SIZE
        out = ffi.new("ldfs_arena **")
        possible = 0 < self.size <= _MOST  # a larger size may not fit the core's integer type
        rc = lib.ldfs_arena_create(self.size, out) if possible else -errno.EINVAL
        if rc:
            raise _not_made(self.size, -rc)
        self._handle: CData = ffi.gc(out[0], lib.ldfs_arena_destroy)
        self.live: npt.NDArray[np.uint8] = np.frombuffer(self._live_buffer(), dtype=np.uint8)
        """The whole live view, writable: one byte an element."""
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._named: list[ArrayInfo] = []
        self._used = 0

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

    @property
    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """The named arrays, by name."""
        return dict(self._arrays)

    @property
    def named(self) -> Sequence[ArrayInfo]:
        """Places of the named arrays, in the order in which they were made."""
        return tuple(self._named)

    def array(
        self,
        dtype: npt.DTypeLike,
        shape: int | tuple[int, ...],
        *,
        name: str | None = None,
    ) -> npt.NDArray[Any]:
        """A new array of zeros over the live view. One with a name is listed in dumps.

        UsageError (ValueError): the dtype holds Python objects; a named array has no bytes; the
        name is empty or taken; the arena is full. WrongType (TypeError): the name is not a str.
        """
        self._open()
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise UsageError(f"an arena cannot hold Python objects (dtype {kind})")
        self._check_name(name)
        if name is not None and kind.itemsize == 0:
            raise UsageError(f"an array of dtype {kind} holds nothing that a dump could list")
        dimensions = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        return self._place(kind, dimensions, self._allocate(kind, dimensions), name)

    def _check_name(self, name: object) -> None:
        """Any text is allowed: dumps list names, but never use them as file names."""
        if name is None:
            return
        if not isinstance(name, str):
            raise WrongType(f"an array's name must be text, not {type(name).__name__}")
        if not name:
            raise UsageError("an array's name cannot be empty", hint="None: it gets none")
        if name in self._arrays:
            raise UsageError(f"the arena has an array named {name!r} already")

    def _allocate(self, kind: np.dtype[Any], shape: tuple[int, ...]) -> int:
        size = math.prod(shape) * kind.itemsize
        # Large arrays start at a page, so no two of them share one: a store into one never causes a
        # page fault for a page of the other.
        alignment = PAGE_SIZE if size >= PAGE_SIZE else _ALIGNMENT
        offset = -(-self._used // alignment) * alignment
        if min(shape, default=0) < 0 or offset + size > self.size:
            raise UsageError(
                f"no room for {format_size(size)} in the arena: "
                f"{format_size(max(0, self.size - offset))} of {format_size(self.size)} are free"
            )
        self._used = offset + size
        return offset

    def _place(
        self, kind: np.dtype[Any], shape: tuple[int, ...], offset: int, name: str | None
    ) -> npt.NDArray[Any]:
        size = math.prod(shape) * kind.itemsize
        made: npt.NDArray[Any] = self.live[offset : offset + size].view(kind).reshape(shape)
        if name is not None:
            self._arrays[name] = made
            self._named.append(ArrayInfo(name, kind, shape, offset))
        return made

    def read(self, offset: int, length: int) -> bytes:
        """Live bytes [offset, offset+length). Reading a hole does not allocate it. UsageError: the
        range is not inside the arena."""
        out = bytearray(length)
        rc = lib.ldfs_arena_read(self._open(), offset, ffi.from_buffer(out), length)
        self._check_range(rc, "read", offset, length)
        return bytes(out)

    def writable(self, offset: int, length: int) -> None:
        """Make [offset, offset+length) safe for system calls to write. During a dump its old bytes
        are saved first. This holds until the next START. UsageError: outside the arena."""
        rc = lib.ldfs_arena_writable(self._open(), offset, length)
        self._check_range(rc, "open", offset, length)

    def discard(self, offset: int, length: int) -> None:
        """Turn whole pages into holes; during a dump their old bytes are saved first.
        UsageError: outside the arena, or not whole pages."""
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
    def load(cls, dump: SavedArena, *, check: bool = True) -> Self:
        """A new arena with the memory of a dump, and its named arrays in `arrays`.

        `dump`: from livedumpfs.open_dump(path). `check`: refuse a dump that is not consistent.
        Pages of zeros stay holes. InconsistentDump (OSError): the dump is torn or incomplete; with
        check=False the memory that it lacks is zeros. OSError: the dump's target cannot be read.
        """
        missing = dump.missing()
        if check and dump.verdict != "consistent":
            raise _inconsistent(dump, missing)
        arena = cls(dump.arena_size)
        buffer = memoryview(bytearray(min(_COPY, dump.arena_size)))
        begin = 0
        for first, end in (*missing, (dump.arena_size, dump.arena_size)):
            for offset in range(begin, first, _COPY):
                piece = buffer[: min(_COPY, first - offset)]
                dump.read_into(offset, piece)
                arena._restore(offset, piece)
            begin = end
        for a in dump.arrays:
            arena._place(a.dtype, a.shape, a.offset, a.name)
            end = a.offset + math.prod(a.shape) * a.dtype.itemsize
            arena._used = max(arena._used, end)
        return arena

    def _restore(self, offset: int, data: memoryview) -> None:
        pages = np.frombuffer(data, dtype=np.uint8).reshape(-1, PAGE_SIZE)
        here = self.live[offset : offset + len(data)].reshape(-1, PAGE_SIZE)
        filled = pages.any(axis=1)
        here[filled] = pages[filled]


def _inconsistent(dump: SavedArena, missing: Sequence[tuple[int, int]]) -> InconsistentDump:
    size = dump.granule_size
    gone = sum(-(-(end - first) // size) for first, end in missing)
    return InconsistentDump.of(
        dump.verdict,
        dump.path,
        None,
        0,
        granules=(-(-dump.arena_size // size), gone, 0),
        pages=size // PAGE_SIZE,
    )
