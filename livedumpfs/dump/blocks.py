# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocks: what was read last of a snapshot that is far away, for readers of a few bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from cachetools import LRUCache

from livedumpfs.errors import LivedumpError

BLOCK: Final = 64 << 10
"""Bytes; in whole blocks from the start of the snapshot."""
MOST: Final = 512
"""Blocks that are kept."""
SMALL: Final = BLOCK // 2
"""Bytes of a read that a block is fetched for; longer ones come at the price of a fetch."""

Fetch = Callable[[int, memoryview], None]
"""Fill the view with the bytes from that offset on. OSError, LivedumpError."""


class Blocks:
    """Bytes that never change, as those of a snapshot. Any thread may read; none waits for the
    fetch of another."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        """`size`: bytes that there are."""
        self._fetch = fetch
        self._size = size
        self._lock = threading.Lock()
        self._kept: LRUCache[int, bytes] = LRUCache(MOST)
        """By number."""
        self._closed = False

    def read_into(self, offset: int, view: memoryview) -> None:
        """As `fetch`, and with the errors that it has for just these bytes."""
        if not 0 < len(view) <= SMALL or not 0 <= offset <= self._size - len(view):
            self._fetch(offset, view)
            return
        at = 0
        while at < len(view):
            number, within = divmod(offset + at, BLOCK)
            part = view[at : at + BLOCK - within]
            block = self._block(number)
            if block is None:
                self._fetch(offset + at, part)
            else:
                part[:] = block[within : within + len(part)]
            at += len(part)

    def close(self) -> None:
        """From now on nothing is kept, and all is asked for anew."""
        with self._lock:
            self._closed = True
            self._kept.clear()

    def _block(self, number: int) -> bytes | None:
        """None: it cannot be had as a whole; a part of it may."""
        with self._lock:
            kept = self._kept.get(number)
        if kept is not None:
            return kept
        start = number * BLOCK
        fetched = bytearray(min(BLOCK, self._size - start))
        try:
            self._fetch(start, memoryview(fetched))
        except (LivedumpError, OSError):
            return None
        block = bytes(fetched)
        with self._lock:
            if not self._closed:
                self._kept[number] = block
        return block
