# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCOREINFO: the text in a Linux kernel's memory that describes the kernel to readers of its
dumps."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from livedumpfs.errors import LivedumpError
from livedumpfs.machines.machine import PhysicalRange
from livedumpfs.units import PAGE_SIZE

MAX_SIZE: Final = PAGE_SIZE
"""Most bytes of the text; the kernel has one page for it."""
_FIRST: Final = b"OSRELEASE="
_NEEDED: Final = (b"\nKERNELOFFSET=", b"\nNUMBER(phys_base)=", b"\nSYMBOL(swapper_pg_dir)=")
_PIECE: Final = 4 << 20
_MOST_CHECKED: Final = 1 << 16
"""Most places to check: a hostile guest may fill its memory with the text's first word."""

_KERNEL_MAP: Final = 0xFFFF_FFFF_8000_0000
"""Virtual address of the kernel's text, less phys_base."""
_TOP_ENTRY: Final = 511 * 8
"""Offset of the last entry of a top-level page table. All tables of a kernel share that part of the
address space."""
_ADDRESS_BITS: Final = 0x000F_FFFF_FFFF_F000
_USER_TABLE: Final = 1 << 12
"""Bit of CR3 that is set while user space runs under page table isolation."""

Read = Callable[[int, int], bytes]
"""read(offset, length): bytes [offset, offset+length) of the arena."""
Proof = Callable[[bytes], bool]


def locate_vmcoreinfo(
    read: Read,
    size: int,
    proof: Proof = lambda text: True,
    *,
    data: Iterable[tuple[int, int]] | None = None,
) -> tuple[int, int] | None:
    """(offset, length) in the arena of a complete text for which `proof` holds; if it holds for
    none, of any complete text; None: there is none at all. `size`: bytes of the arena.

    At worst it reads all of the memory, or the ranges (offset, length) of `data`, which may leave
    out holes. So call it before the snapshot instant, and read the place again from the snapshot:
    the kernel wrote the text once, when it started.
    """
    second = None
    for offset in _hits(read, size, ((0, size),) if data is None else data):
        text = _text_at(read, offset, size)
        if text is None:
            continue
        if proof(text):
            return offset, len(text)
        second = second or (offset, len(text))
    return second


def find_vmcoreinfo(read: Read, size: int, proof: Proof = lambda text: True) -> bytes | None:
    """The text itself; arguments as of locate_vmcoreinfo."""
    place = locate_vmcoreinfo(read, size, proof)
    return None if place is None else _text_at(read, place[0], size)


def is_current(
    text: bytes, read: Read, memory_map: Sequence[PhysicalRange], cr3s: Iterable[int]
) -> bool:
    """Whether `text` belongs to the kernel that a vCPU runs. After a guest's reboot, the text of
    the kernel before may still be in memory, with other addresses. `cr3s`: of the vCPUs."""
    symbol, base = (_number(text, name) for name in ("SYMBOL(swapper_pg_dir)", "NUMBER(phys_base)"))
    if symbol is None or base is None:
        return False
    own = _top_entry(read, memory_map, symbol - _KERNEL_MAP + base)
    return own in kernel_tables(read, memory_map, cr3s)


def kernel_tables(
    read: Read, memory_map: Sequence[PhysicalRange], cr3s: Iterable[int]
) -> frozenset[bytes]:
    """The page table entries that map the kernel, from the tables that the vCPUs use. A kernel
    keeps some of them as long as it runs; empty: no kernel has set up its tables yet."""
    tables = (cr3 & _ADDRESS_BITS & mask for cr3 in cr3s for mask in (~0, ~_USER_TABLE))
    return frozenset(filter(None, (_top_entry(read, memory_map, one) for one in tables)))


def _hits(read: Read, size: int, ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Offsets of the first word, at most _MOST_CHECKED."""
    pieces = (
        (start, min(start + _PIECE, offset + length))
        for offset, length in ranges
        for start in range(offset, offset + length, _PIECE)
    )
    return itertools.islice(
        (at for start, end in pieces for at in _hits_within(read, start, end, size)), _MOST_CHECKED
    )


def _hits_within(read: Read, start: int, end: int, size: int) -> Iterator[int]:
    """Offsets of first words that begin in [start, end); a word may end behind it."""
    piece = read(start, min(end + len(_FIRST) - 1, size) - start)
    at = piece.find(_FIRST)
    while at >= 0:
        yield start + at
        at = piece.find(_FIRST, at + 1)


def _text_at(read: Read, offset: int, size: int) -> bytes | None:
    """The text at `offset`, up to a NUL or the end of the memory."""
    return check_vmcoreinfo(read(offset, min(MAX_SIZE, size - offset)))


def check_vmcoreinfo(found: bytes) -> bytes | None:
    """The text at the start of `found`, up to a NUL or its end; None: not complete, or no such
    text. Other tools print it, so a text with control characters does not count."""
    text, _, _ = found[:MAX_SIZE].partition(b"\0")
    if not text.startswith(_FIRST) or not text.endswith(b"\n"):
        return None
    readable = text.isascii() and text.replace(b"\n", b" ").decode().isprintable()
    return text if readable and all(word in text for word in _NEEDED) else None


def _number(text: bytes, name: str) -> int | None:
    """The number in a line of the text: SYMBOLs are hexadecimal, NUMBERs decimal."""
    match = re.search(rb"^%s=(-?[0-9a-f]+)$" % re.escape(name.encode()), text, re.MULTILINE)
    try:
        return int(match[1], 16 if name.startswith("SYMBOL") else 10) if match else None
    except ValueError:
        return None


def _top_entry(read: Read, memory_map: Sequence[PhysicalRange], table: int) -> bytes | None:
    """The entry that maps the kernel in the top-level page table at physical address `table`,
    without its flag bits."""
    place = table + _TOP_ENTRY
    for one in memory_map:
        if one.start <= place <= one.end - 8:
            try:
                entry = read(place - one.start + one.arena_offset, 8)
            except (LivedumpError, OSError):  # lost, or was never there
                return None
            address = int.from_bytes(entry, "little") & _ADDRESS_BITS
            return address.to_bytes(8, "little") if address else None
    return None
