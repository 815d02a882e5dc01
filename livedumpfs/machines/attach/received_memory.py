# SPDX-License-Identifier: GPL-2.0-or-later
"""ReceivedMemory: the guest's RAM as a stream brings it, in an arena of this process."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.core.arena import Arena
from livedumpfs.errors import MachineError
from livedumpfs.machines.attach.stream import Addresses, Pages
from livedumpfs.machines.attach.window import strange
from livedumpfs.units import PAGE_SIZE

_SHIFT: Final = np.uint64(PAGE_SIZE.bit_length() - 1)


@dataclass(frozen=True)
class RamBlock:
    """A memory block of QEMU that is RAM of the guest: bytes [offset, offset + size) of the
    arena."""

    name: str
    """Id of its memory backend."""
    size: int
    offset: int
    sparse: bool = False
    """QEMU sends only the pages that the guest has plugged in (virtio-mem)."""

    def among(self, blocks: Mapping[str, int]) -> str:
        """Its name in a stream: its id, or its id behind a path, of the object or of the device
        that brings it into the guest (virtio-mem). StreamError: it is not there, or cannot be told
        from another one."""
        for name in (self.name, f"/objects/{self.name}"):
            if blocks.get(name) == self.size:
                return name
        behind = f"/{self.name}"
        found = [one for one, size in blocks.items() if one.endswith(behind) and size == self.size]
        if not found:
            raise strange(f"it has no memory block {self.name!r} of {self.size} bytes")
        if len(found) > 1:
            raise strange(f"{found[0]!r} and {found[1]!r} may each be the memory {self.name!r}")
        return found[0]


class ReceivedMemory(Arena):
    """All of it is of one instant, or it cannot be read. See PageSink."""

    def __init__(self, blocks: Sequence[RamBlock]) -> None:
        """MachineError: there is no room for it."""
        super().__init__(sum(one.size for one in blocks))
        self._blocks = blocks
        self._places: dict[str, RamBlock] = {}
        self._came = np.zeros(self.size // PAGE_SIZE, dtype=np.bool_)
        self._filled = np.zeros(self.size // PAGE_SIZE, dtype=np.bool_)
        """Pages with something other than zeros."""
        self.left_out: dict[str, int] = {}
        """Blocks that are no RAM (firmware, display), with their sizes in bytes."""
        self._whole = False
        self._emptied = 0

    def forget_received(self) -> None:
        """Forget all that was received."""
        self._whole = False  # first: a reader looks at it last
        self._emptied += 1
        self.discard(0, self.size)
        self._came[:] = self._filled[:] = False
        self._places = {}

    def begin(self, blocks: Mapping[str, int]) -> None:
        """StreamError: the RAM is not the one that there was."""
        for one in self._blocks:
            name = one.among(blocks)
            if name in self._places:
                raise strange(f"{name!r} is the memory {self._places[name].name!r}, too")
            self._places[name] = one
        self.left_out = {name: size for name, size in blocks.items() if name not in self._places}

    def pages(self, block: str, addresses: Addresses, content: Pages) -> None:
        """See PageSink."""
        at = self._indices(block, addresses)
        if at is not None:
            self._pages()[at] = content
            self._came[at] = self._filled[at] = True

    def filled(self, block: str, addresses: Addresses, value: int) -> None:
        """See PageSink. Zeros stay holes."""
        at = self._indices(block, addresses)
        if at is not None:
            known = at if value else at[self._filled[at]]
            if known.size:
                self._pages()[known] = value
                self._filled[known] = True
            self._came[at] = True

    def _pages(self) -> npt.NDArray[np.uint8]:
        return self.live.reshape(-1, PAGE_SIZE)

    def _indices(self, block: str, addresses: Addresses) -> npt.NDArray[np.intp] | None:
        place = self._places.get(block)
        if place is None:
            return None
        return (addresses >> _SHIFT).astype(np.intp) + place.offset // PAGE_SIZE

    def expect_whole(self) -> None:
        """The stream has ended. StreamError: pages are missing."""
        for one in self._blocks:
            first = one.offset // PAGE_SIZE
            missing = int((~self._came[first : first + one.size // PAGE_SIZE]).sum())
            if missing and not one.sparse:
                raise strange(f"{missing} pages of {one.name!r} are missing")

    def show(self) -> None:
        """It is whole, and may be read."""
        self._whole = True

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the last instant. MachineError ENODATA: there was none, or the next START brings
        another one."""
        emptied, whole = self._emptied, self._whole
        found = super().read(offset, length) if whole else b""
        if not whole or emptied != self._emptied:
            raise MachineError(
                "the guest's memory is in QEMU alone before START has brought it",
                errno=errno.ENODATA,
                hint="livedump init, livedump start",
            )
        return found

    def data(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of each range with something other than zeros, in bytes."""
        edges = np.flatnonzero(np.diff(self._filled.astype(np.int8), prepend=0, append=0))
        for first, end in edges.reshape(-1, 2):
            yield int(first) * PAGE_SIZE, int(end - first) * PAGE_SIZE
