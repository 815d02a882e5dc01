# SPDX-License-Identifier: GPL-2.0-or-later
"""Parts: a file that comes in any order, in parts of one size, which are put aside when whole.

What comes for a part that is not whole waits in memory. Where too much waits, the part that has
most of it is put aside as it is, and fetched again for what comes later. Bytes that never come are
zeros.
"""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import dataclass, field
from typing import Final, Protocol

from livedumpfs.errors import LivedumpError, TargetError
from livedumpfs.thread import needing_threads, start_thread

PART_SIZE: Final = 32 << 20
"""Bytes of a part but the last. S3 takes 10,000 parts."""
WAITING_MOST: Final = 256 << 20
"""Bytes that may wait in memory."""
_UPLOADS: Final = 4
"""Parts that are put aside at once; each is in memory meanwhile."""


class Aside(Protocol):
    """Where whole parts wait. Any number of threads may call. Failures are LivedumpErrors."""

    def put(self, number: int, data: bytes | bytearray) -> None:
        """Keep it, in place of what was kept with that number."""

    def get(self, number: int) -> bytes:
        """What was put last."""


@dataclass
class _Part:
    number: int
    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    """Where in the part, and what; a later one counts more."""
    waiting: int = 0
    """Bytes of the pieces."""
    is_aside: bool = False
    idle: threading.Event = field(default_factory=threading.Event)
    """Not set while a thread puts it aside."""

    def __post_init__(self) -> None:
        self.idle.set()


class Parts:
    """One thread calls."""

    def __init__(
        self, aside: Aside, size: int = PART_SIZE, waiting_most: int = WAITING_MOST
    ) -> None:
        self._aside, self.size, self._most = aside, size, waiting_most
        self._parts: dict[int, _Part] = {}
        self._waiting = 0
        self._room = threading.BoundedSemaphore(_UPLOADS)
        self._error: LivedumpError | None = None
        self.end = 0
        """Behind the last byte that came."""

    def write(self, offset: int, data: memoryview) -> None:
        """Bytes [offset, offset + len(data)) of the file. Raises what putting aside has met."""
        self._raise_error()
        self.end = max(self.end, offset + len(data))
        while len(data):
            number, at = divmod(offset, self.size)
            piece = bytes(data[: self.size - at])
            self._keep(self._part(number), at, piece)
            offset, data = offset + len(piece), data[len(piece) :]
        while self._waiting > self._most:
            self._put_aside(max(self._parts.values(), key=lambda part: part.waiting))

    def _part(self, number: int) -> _Part:
        return self._parts.setdefault(number, _Part(number))

    def _keep(self, part: _Part, at: int, piece: bytes) -> None:
        part.pieces.append((at, piece))
        part.waiting += len(piece)
        self._waiting += len(piece)
        if part.waiting >= self.size and self._is_whole(part):
            self._put_aside(part)

    def _is_whole(self, part: _Part) -> bool:
        reached = 0
        for at, piece in sorted(part.pieces, key=lambda one: one[0]):
            if at > reached:
                return False
            reached = max(reached, at + len(piece))
        return reached == self.size

    def _put_aside(self, part: _Part) -> None:
        """On a thread of its own; waits while too many do so."""
        part.idle.wait()
        pieces, is_aside = part.pieces, part.is_aside
        self._waiting -= part.waiting
        part.pieces, part.waiting, part.is_aside = [], 0, True
        self._room.acquire()

        def work() -> None:
            try:
                if self._error is None:
                    self._aside.put(part.number, self._merged(part.number, is_aside, pieces))
            except BaseException as error:
                self._error = self._error or _as_target_error(error)
            finally:
                over()

        def over() -> None:
            self._room.release()
            part.idle.set()

        part.idle.clear()
        try:
            with needing_threads("put parts of the dump aside"):
                start_thread(threading.Thread(target=work, name="livedump-part", daemon=True))
        except LivedumpError:
            over()
            raise

    def _merged(self, number: int, is_aside: bool, pieces: list[tuple[int, bytes]]) -> bytearray:
        data = bytearray(self._aside.get(number)) if is_aside else bytearray(self.size)
        for at, piece in pieces:
            data[at : at + len(piece)] = piece
        return data

    def finish(self) -> list[bytes | bytearray | int | None]:
        """The parts in order, the last one cut to its size: bytes; or the number of one that is
        aside as it is; None: zeros. Raises what putting aside has met."""
        for part in self._parts.values():
            part.idle.wait()
        self._raise_error()
        count = -(-self.end // self.size)
        return [self._last_form(number, number == count - 1) for number in range(count)]

    def _last_form(self, number: int, is_last: bool) -> bytes | bytearray | int | None:
        part = self._parts.get(number)
        if part is None and not is_last:
            return None
        if part is not None and part.is_aside and not part.pieces and not is_last:
            return number
        found = part or _Part(number)
        data = self._merged(number, found.is_aside, found.pieces)
        return data[: self.end - number * self.size] if is_last else data

    def stop(self, seconds: float) -> None:
        """Put nothing more aside. Waits so long for what is under way."""
        self._error = self._error or TargetError("it was given up")
        deadline = time.monotonic() + seconds
        for part in self._parts.values():
            part.idle.wait(max(0.0, deadline - time.monotonic()))

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def _as_target_error(error: BaseException) -> LivedumpError:
    """A part that is not aside must never count as one that is, whatever was met."""
    if isinstance(error, LivedumpError):
        return error
    code = errno.ENOMEM if isinstance(error, MemoryError) else errno.EIO
    return TargetError(f"a part of the dump was not put aside: {type(error).__name__}", errno=code)
