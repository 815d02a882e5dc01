# SPDX-License-Identifier: GPL-2.0-or-later
"""MigrationStream: QEMU's migration stream, version 3, read while it arrives.

RAM comes first: a section START with the names and sizes of all memory blocks, then PART and END
with pages. Behind it come sections of the devices. Their length is in no header: it follows from
the description at the end of the stream, so they are kept until then (description.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from livedumpfs.machines.attach.window import ReadInto, StreamWindow, strange
from livedumpfs.units import PAGE_SIZE, format_size

MAGIC: Final = 0x5145564D
VERSION: Final = 3
# Types of sections (migration/savevm.h of QEMU).
START: Final = 1
PART: Final = 2
END: Final = 3
FULL: Final = 4
SUBSECTION: Final = 5
CONFIGURATION: Final = 7
COMMAND: Final = 8
FOOTER: Final = 0x7E
# Flags in the low bits of an address (migration/ram.c).
ZERO: Final = 0x02
MEM_SIZE: Final = 0x04
PAGE: Final = 0x08
EOS: Final = 0x10
CONTINUE: Final = 0x20

_FLAGS: Final = PAGE_SIZE - 1
_RAM: Final = "ram"
_RAM_VERSION: Final = 4
_MOST_BLOCKS: Final = 4096
_MOST_EMPTY: Final = 1 << 16
"""Most sections between two with pages."""
_MOST_STATE: Final = 256 << 20
"""Most bytes of all devices' states. Those of a guest with a large virtual display are some MiB."""
_MOST_EARLY: Final = 1 << 20
"""Most bytes of a device's section that comes before the RAM (virtio-mem's, from QEMU 8.1 on)."""
_PAGE_RECORD: Final = 8 + PAGE_SIZE
_ZERO_RECORD: Final = 8 + 1
_CONFIGURED: Final[Mapping[str, int]] = {
    "configuration/target-page-bits": 4,
    "configuration/uuid": 16,
}
"""Subsections of the configuration -> their bytes."""
_CAPABILITIES: Final = "configuration/capabilities"

Addresses = npt.NDArray[np.uint64]
Pages = npt.NDArray[np.uint8]


class PageSink(Protocol):
    """What takes the memory. Addresses are offsets in a block: whole pages, inside of it."""

    def begin(self, blocks: Mapping[str, int]) -> None:
        """The memory blocks, with their sizes in bytes."""

    def pages(self, block: str, addresses: Addresses, content: Pages) -> None:
        """Pages of a block; a row of `content` each, valid during the call."""

    def filled(self, block: str, addresses: Addresses, value: int) -> None:
        """Pages of a block whose bytes are all that value."""


class MigrationStream:
    """One stream. StreamError: it is damaged, ends too early, or has what is not known here."""

    def __init__(self, read: ReadInto, sink: PageSink) -> None:
        self._window = StreamWindow(read)
        self._sink = sink
        self._blocks: dict[str, int] = {}
        self._block = ""
        """Block of the last page."""
        self._ram_id = -1
        self._pages_came = False
        self._records = 0
        """Steps in which pages came."""
        self._guess = 1
        """Records that probably have one form."""

    @property
    def received(self) -> int:
        """Bytes that were read and understood."""
        return self._window.passed

    def read(self) -> bytes:
        """Read all of it. The sections of the devices and the description, as they came."""
        window = self._window
        if window.number(4, "its magic number") != MAGIC:
            raise strange("it does not begin as one")
        version = window.number(4, "its version")
        if version != VERSION:
            raise strange(f"its version is {version}, only {VERSION} is known")
        steps: dict[int, Callable[[], None]] = {
            START: self._start,
            PART: self._pages_of_section,
            END: self._pages_of_section,
            CONFIGURATION: self._configuration,
            COMMAND: self._command,
        }
        empty = 0
        while True:
            kind = window.number(1, "its sections")
            before = self._records
            if kind == FULL and not self._pages_came:
                self._skip_early()
            elif kind in (FULL, 0):  # 0: there is no device
                return self._rest(bytes([kind]))
            elif kind in steps:
                steps[kind]()
                self._pages_came |= kind in (PART, END)
                empty = 0 if self._records > before else empty + 1
                if empty > _MOST_EMPTY:
                    raise strange(f"{empty} of its sections bring nothing")
            else:
                raise strange(f"a section of type {kind:#x} is not known")

    # ------------------------------------------------------------------ small sections

    def _configuration(self) -> None:
        window, what = self._window, "its configuration"
        length = window.number(4, what)
        if length > _FLAGS:
            raise strange(f"the name of the machine has {length} bytes")
        window.take(length, what)
        while True:
            window.need(1, what)
            if window.there[0] != SUBSECTION:
                return
            window.skip(1)
            name = window.name(what)
            window.number(4, what)
            if name == _CAPABILITIES:
                for _ in range(min(window.number(4, what), 256)):
                    window.name(what)
            elif name in _CONFIGURED:
                window.take(_CONFIGURED[name], what)
            else:
                raise strange(f"its configuration has {name}, which is not known")

    def _command(self) -> None:
        what = "a command"
        self._window.number(2, what)
        self._window.take(self._window.number(2, what), what)

    def _footer(self, number: int) -> None:
        what = "the end of a section"
        kind, found = self._window.number(1, what), self._window.number(4, what)
        if (kind, found) != (FOOTER, number):
            raise strange(f"section {number} does not end where it should")

    def _skip_early(self) -> None:
        """A device before the first pages. Its length is not known yet: its footer tells, with
        the type of a section behind it."""
        window, what = self._window, "a device"
        number = window.number(4, what)
        mark = bytes([FOOTER]) + number.to_bytes(4, "big")
        start = 0
        while True:
            there = bytes(window.there[: _MOST_EARLY + len(mark) + 1])
            at = there.find(mark, start)
            if 0 <= at < len(there) - len(mark):
                if there[at + len(mark)] in (START, PART, END, FULL):
                    window.skip(at + len(mark))
                    return
                start = at + 1
            elif len(there) > _MOST_EARLY or not window.more():
                raise strange("a device comes before the RAM, and its end is not to be seen")

    # ---------------------------------------------------------------------- the RAM

    def _start(self) -> None:
        window, what = self._window, "the list of its memory"
        number = window.number(4, what)
        name = window.name(what)
        window.number(4, what)
        version = window.number(4, what)
        if name != _RAM or self._ram_id >= 0:
            raise strange(f"a live section of {name!r} is not known here")
        if version != _RAM_VERSION:
            raise strange(f"its RAM has version {version}, only {_RAM_VERSION} is known")
        self._ram_id = number
        header = window.number(8, what)
        if header & _FLAGS != MEM_SIZE:
            raise strange(f"its RAM begins with flags {header & _FLAGS:#x}")
        self._read_blocks(header & ~_FLAGS)
        self._sink.begin(self._blocks)
        self._pages()
        self._footer(number)

    def _read_blocks(self, total: int) -> None:
        window, what = self._window, "the list of its memory"
        for _ in range(_MOST_BLOCKS):
            if total == 0:
                return
            name, size = window.name(what), window.number(8, what)
            if not 0 < size <= total or size % PAGE_SIZE or name in self._blocks:
                raise strange(f"a memory block {name!r} of {size} bytes makes no sense")
            self._blocks[name] = size
            total -= size
        raise strange(f"it has more than {_MOST_BLOCKS} memory blocks")

    def _pages_of_section(self) -> None:
        number = self._window.number(4, "a section")
        if number != self._ram_id:
            raise strange(f"section {number} was never begun")
        self._pages()
        self._footer(number)

    def _pages(self) -> None:
        """Records of pages, up to the end of the section."""
        window = self._window
        while True:
            header = window.number(8, "the pages")
            flags = header & _FLAGS
            if flags == EOS:
                return
            kind = flags & ~CONTINUE
            if kind not in (PAGE, ZERO):
                raise strange(f"a page with flags {flags:#x} is not known")
            self._one(header & ~_FLAGS, kind, continues=bool(flags & CONTINUE))
            if kind == PAGE:
                while self._run(PAGE, _PAGE_RECORD):
                    pass
            else:
                while self._run(ZERO, _ZERO_RECORD):
                    pass

    def _one(self, address: int, kind: int, *, continues: bool) -> None:
        window, what = self._window, "a page"
        self._records += 1
        if not continues:
            self._block = window.name(what)
        size = self._blocks.get(self._block)
        if size is None:
            raise strange(f"a page of a memory block {self._block!r} that there is not")
        addresses = np.array([address], dtype=np.uint64)
        self._expect_inside(addresses)
        if kind == PAGE:
            window.need(PAGE_SIZE, what)
            content = np.frombuffer(window.there[:PAGE_SIZE], dtype=np.uint8)
            self._sink.pages(self._block, addresses, content.reshape(1, PAGE_SIZE))
            window.skip(PAGE_SIZE)
        else:
            self._sink.filled(self._block, addresses, window.number(1, what))

    def _expect_inside(self, addresses: Addresses) -> None:
        size = self._blocks[self._block]
        if int(addresses.max()) >= size:
            raise strange(
                f"a page at {int(addresses.max()):#x} of {self._block!r}, which has "
                f"{format_size(size)}"
            )

    def _run(self, kind: int, length: int) -> bool:
        """Take as many records as are there and have one form: of the block of the last page. A
        guest has a page for each of them, and Python no time for each. False: there was none."""
        window = self._window
        count = min(len(window.there) // length, self._guess)
        if not count:
            return False
        records = np.frombuffer(window.there[: count * length], dtype=np.uint8)
        records = records.reshape(count, length)
        headers = np.ascontiguousarray(records[:, :8]).view(">u8").ravel().astype(np.uint64)
        same = (headers & np.uint64(_FLAGS)) == (kind | CONTINUE)
        if kind == ZERO:
            same &= records[:, 8] == 0
        if not same.all():
            count = int(same.argmin())
        self._guess = 2 * count + 1
        if not count:
            return False
        addresses = headers[:count] & ~np.uint64(_FLAGS)
        self._expect_inside(addresses)
        if kind == PAGE:
            self._sink.pages(self._block, addresses, records[:count, 8:])
        else:
            self._sink.filled(self._block, addresses, 0)
        window.skip(count * length)
        return True

    # -------------------------------------------------------------------- the devices

    def _rest(self, first: bytes) -> bytes:
        if self._ram_id < 0:
            raise strange("it has no RAM")
        window, found = self._window, bytearray(first)
        for _ in itertools.count():
            found += window.there
            window.skip(len(window.there))
            if len(found) > _MOST_STATE:
                raise strange(f"its devices have more than {format_size(_MOST_STATE)}")
            if not window.more():
                return bytes(found)
        raise AssertionError
