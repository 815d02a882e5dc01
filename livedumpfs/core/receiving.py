# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that write an arena's memory, while a dump protects it."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from livedumpfs.errors import MachineError, UsageError
from livedumpfs.writer_lock import WriterLock

_PIECE = 4 << 20
"""Bytes of one read: START waits for no more."""
_BUFFER = 1 << 18


class ReadsInto(Protocol):
    """A binary file, as open(path, "rb") gives it."""

    def readinto(self, buffer: Any, /) -> int | None: ...


FillSource = str | os.PathLike[str] | ReadsInto | socket.socket


class Receives(Protocol):
    """What is wanted of an arena."""

    @property
    def receivers(self) -> WriterLock: ...
    def offset_of(self, array: npt.NDArray[Any]) -> int: ...
    def writable(self, offset: int, length: int) -> None: ...


class Receiving(AbstractContextManager[memoryview]):
    """Arena.receiving."""

    def __init__(self, arena: Receives, array: npt.NDArray[Any]) -> None:
        self._arena = arena
        self._array = array
        self._offset = arena.offset_of(array)

    def __enter__(self) -> memoryview:
        view = bytes_of(self._array)
        self._arena.receivers.__enter__()
        try:
            self._save(len(view))
        except BaseException:
            self._arena.receivers.__exit__(None, None, None)
            raise
        return view

    def _save(self, length: int) -> None:
        try:
            self._arena.writable(self._offset, length)
        except MachineError as error:
            if error.errno != errno.ECHILD:  # a forked child's memory is its own: none is protected
                raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._arena.receivers.__exit__(kind, value, traceback)
        if isinstance(value, OSError) and value.errno == errno.EFAULT:
            raise MachineError(
                "a system call met memory of an arena that a dump protects, and that is not opened",
                errno=errno.EFAULT,
                hint="receiving(array) of the very array that it writes",
            ) from value


def bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of an array in one piece. UsageError: it is read-only."""
    if not array.flags.writeable:
        raise UsageError("the array is read-only")
    return array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(bytearray())


def fill(arena: Receives, array: npt.NDArray[Any], source: FillSource) -> None:
    """Arena.fill."""
    arena.offset_of(array)  # refuses before anything is read
    if isinstance(source, str | os.PathLike):
        with open(source, "rb", buffering=0) as file:
            return fill(arena, array, file)
    left = np.frombuffer(bytes_of(array), np.uint8) if array.nbytes else np.empty(0, np.uint8)
    one = _read_straight if _is_regular(source) else _read_by_buffer
    while len(left):
        count = one(arena, left[:_PIECE], source)
        if count == 0:
            raise UsageError(
                f"the source has ended {len(left)} bytes before the array's {array.nbytes} were "
                "full"
            )
        left = left[count:]
    return None


def _is_regular(source: Any) -> bool:
    try:
        return stat.S_ISREG(os.fstat(source.fileno()).st_mode)
    except (AttributeError, OSError):  # as of io.BytesIO
        return False


def _read_straight(arena: Receives, piece: npt.NDArray[np.uint8], source: Any) -> int:
    with Receiving(arena, piece) as view:
        return _came(source.readinto(view))


def _read_by_buffer(arena: Receives, piece: npt.NDArray[np.uint8], source: Any) -> int:
    """The store is a Python thread's, which a dump sees; START waits for it, and for nothing
    else."""
    buffer = bytearray(min(len(piece), _BUFFER))
    read = getattr(source, "recv_into", None) or source.readinto
    count = _came(read(buffer))
    with arena.receivers:
        piece[:count] = np.frombuffer(buffer, np.uint8, count)
    return count


def _came(count: int | None) -> int:
    if count is None:
        raise BlockingIOError(errno.EAGAIN, "the source does not wait for data, and has none now")
    return count
