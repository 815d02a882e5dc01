# SPDX-License-Identifier: GPL-2.0-or-later
"""PackCache: chunks out of packs. What is read in order is read ahead and kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.stores.objects import Objects
from livedumpfs.stores.pack_index import Spot
from livedumpfs.stores.pack_writer import PACK

_AHEAD: Final = 4 << 20
"""Bytes that one request brings where chunks are read in order."""
_GAP: Final = 256 << 10
"""Most bytes between two chunks that are still in order. Backwards, too: threads that read beside
each other overtake."""
_WINDOWS: Final = 16
_PACKS: Final = 1024
"""Packs of which the last place is remembered."""


class _Window:
    """Bytes [start, start + length) of a pack, less at its end; there, or on their way."""

    def __init__(self, pack: str, start: int, length: int) -> None:
        self.pack, self.start, self.length = pack, start, length
        self.data: Future[bytes] = Future()

    def has(self, spot: Spot) -> bool:
        at = spot.offset - self.start
        return self.pack == spot.pack and at >= 0 and at + spot.length <= self.length


class PackCache:
    """Any number of threads may call."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._guard = threading.Lock()
        self._windows: list[_Window] = []
        """The last used last."""
        self._last: OrderedDict[str, int] = OrderedDict()

    def read(self, spot: Spot) -> bytes:
        """The stored form of the chunk. TargetError; InvalidDump: the pack is shorter."""
        with self._guard:
            window = next((one for one in self._windows if one.has(spot)), None)
            is_new = self._is_in_order(spot) and window is None
            if is_new:
                start = max(0, spot.offset - _GAP)
                end = spot.offset + max(_AHEAD, spot.length)
                window = _Window(spot.pack, start, end - start)
                del self._windows[: len(self._windows) + 1 - _WINDOWS]
            elif window:
                self._windows.remove(window)
            if window:
                self._windows.append(window)
        if window is None:
            return self.read_anew(spot)
        if is_new:
            self._fill(window)
        at = spot.offset - window.start
        return self._whole(spot, window.data.result()[at : at + spot.length])

    def read_anew(self, spot: Spot) -> bytes:
        """read(), of what is there now."""
        return self._whole(spot, self._fetch(spot.pack, spot.offset, spot.length))

    def _fill(self, window: _Window) -> None:
        try:
            window.data.set_result(self._fetch(window.pack, window.start, window.length))
        except BaseException as error:
            with self._guard:
                if window in self._windows:
                    self._windows.remove(window)
            window.data.set_exception(error)

    def _fetch(self, pack: str, offset: int, length: int) -> bytes:
        return self._objects.get_range(pack + PACK, offset, length)

    @staticmethod
    def _whole(spot: Spot, found: bytes) -> bytes:
        if len(found) < spot.length:
            raise InvalidDump("its pack is cut off")
        return found

    def _is_in_order(self, spot: Spot) -> bool:
        last = self._last.pop(spot.pack, None)
        self._last[spot.pack] = spot.offset + spot.length
        if len(self._last) > _PACKS:
            self._last.popitem(last=False)
        return last is not None and abs(spot.offset - last) <= _GAP
