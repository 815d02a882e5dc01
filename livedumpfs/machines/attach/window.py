# SPDX-License-Identifier: GPL-2.0-or-later
"""StreamWindow: the bytes of a stream in their order, through a buffer of a fixed size."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from livedumpfs.errors import LivedumpError

WINDOW: Final = 4 << 20
"""Bytes of the buffer; the most that can be looked at together."""

_MOST_SAID: Final = 400
"""Characters."""

ReadInto = Callable[[memoryview], int]
"""Fills a part of the view, at least one byte, and returns how many; 0: the stream has ended."""


class StreamError(LivedumpError, ValueError):
    """What was received is no migration stream, or one that cannot be read here."""


def strange(what: str) -> StreamError:
    """The one sentence for a stream that is not as it should be. Names in it may be 255 bytes of
    anything."""
    what = what if len(what) <= _MOST_SAID else f"{what[:_MOST_SAID]} ..."
    return StreamError(f"QEMU's migration stream: {what}", errno=errno.EPROTO)


class StreamWindow:
    """Numbers are big-endian. Each method raises StreamError when the stream ends too early, and
    what `read` raises."""

    def __init__(self, read: ReadInto, size: int = WINDOW) -> None:
        self._read = read
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._at = self._end = 0
        self._passed = 0

    @property
    def passed(self) -> int:
        """Bytes of the stream that were taken."""
        return self._passed + self._at

    @property
    def there(self) -> memoryview:
        """The bytes that have come and were not taken; valid until the next call."""
        return self._view[self._at : self._end]

    def more(self) -> bool:
        """Wait for at least one more byte than is there. False: the stream has ended, or the buffer
        is full."""
        if self._at and (self._end == len(self._buffer) or self._at == self._end):
            rest = self._end - self._at
            self._view[:rest] = bytes(self.there)
            self._passed += self._at
            self._at, self._end = 0, rest
        if self._end == len(self._buffer):
            return False
        got = self._read(self._view[self._end :])
        self._end += got
        return got > 0

    def need(self, count: int, what: str) -> None:
        """Wait until `count` bytes are there. `what`: they are part of it."""
        while self._end - self._at < count:
            if not self.more():
                raise strange(f"it ends within {what}, after {self._passed + self._end} bytes")

    def ended(self) -> bool:
        """No byte is left; waits for one."""
        return self._at == self._end and not self.more()

    def skip(self, count: int) -> None:
        """Take bytes that are there."""
        self._at += count

    def take(self, count: int, what: str) -> bytes:
        """The next bytes, at most the window."""
        self.need(count, what)
        found = bytes(self._view[self._at : self._at + count])
        self._at += count
        return found

    def number(self, size: int, what: str) -> int:
        """The next number, of `size` bytes."""
        return int.from_bytes(self.take(size, what), "big")

    def name(self, what: str) -> str:
        """The next name: its length in a byte, then its text."""
        return self.take(self.number(1, what), what).decode("ascii", "backslashreplace")
