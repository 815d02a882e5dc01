# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpArrays: the named arrays of a finished dump, of which some are to be exported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from livedumpfs.core.array_info import ArrayInfo
from livedumpfs.dumpfile import DumpFile
from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.named.save_record import bytes_of
from livedumpfs.units import PAGE_SIZE

_NAMED_AT_ONCE = 5


class DumpArrays:
    """Some arrays of a dump, and its memory. `missing` counts bytes that the dump has not."""

    def __init__(self, dump: DumpFile, names: Sequence[str] = (), *, force: bool = False) -> None:
        """`names`: none means all. `force`: zeros stand for what is missing. UsageError: no such
        array, or none at all. InvalidDump: pages of one are missing."""
        self._dump = dump
        self._missing = dump.missing()
        every = {
            one.name: ArrayInfo(one.name, one.dtype, one.shape, one.offset, one.dims)
            for one in dump.arrays
        }
        for name in names:
            if name not in every:
                raise UsageError(
                    f"{dump.path} has no array {name!r}", hint=f"it has {_listed(list(every))}"
                )
        if not every:
            raise UsageError(f"{dump.path} has no named arrays")
        self.named = [every[name] for name in dict.fromkeys(names)] or list(every.values())
        self.missing = 0
        """Bytes of these arrays."""
        for one in self.named:
            self._check(one, force)

    def _check(self, info: ArrayInfo, force: bool) -> None:
        gaps = list(self._gaps(info.offset, info.offset + bytes_of(info)))
        self.missing += sum(end - first for first, end in gaps)
        if gaps and not force:
            first, end = gaps[0][0] // PAGE_SIZE, -(-gaps[-1][1] // PAGE_SIZE)
            pages = sum(-(-b // PAGE_SIZE) - a // PAGE_SIZE for a, b in gaps)
            raise InvalidDump(
                f"{self._dump.path} is {self._dump.verdict}: {pages} pages of array {info.name!r} "
                f"are missing, of pages {first:#x} to {end - 1:#x}",
                hint="<force> writes zeros there",
            )

    def _gaps(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Parts of a range that are missing."""
        for first, last in self._missing:
            if first < end and begin < last:
                yield max(first, begin), min(last, end)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Bytes of the arena. OSError: the target cannot be read."""
        at, end = offset, offset + len(view)
        for first, last in (*self._gaps(offset, end), (end, end)):
            if at < first:
                self._dump.read_into(at, view[at - offset : first - offset])
            view[first - offset : last - offset] = bytes(last - first)
            at = last

    def load(self, info: ArrayInfo) -> npt.NDArray[Any]:
        """The array. It is a mapping of the dump where it can be one."""
        size = bytes_of(info)
        if not any(self._gaps(info.offset, info.offset + size)):
            return self._dump.array(info.name)
        data = np.empty(size, dtype=np.uint8)
        self.read_into(info.offset, data.data)
        return data.view(info.dtype).reshape(info.shape)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_NAMED_AT_ONCE]))
    more = len(names) - _NAMED_AT_ONCE
    return f"{shown} and {more} more" if more > 0 else shown or "none"
