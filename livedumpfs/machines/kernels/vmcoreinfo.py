# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCOREINFO: the text in a Linux kernel's memory that describes the kernel to readers of its
dumps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from livedumpfs.units import PAGE_SIZE

MAX_SIZE: Final = PAGE_SIZE
"""Most bytes of the text; the kernel has one page for it."""
_FIRST: Final = b"OSRELEASE="
_NEEDED: Final = (
    (b"\nSYMBOL(swapper_pg_dir)=", b"\nKERNELOFFSET=", b"\nNUMBER(phys_base)="),
    (b"\nSYMBOL(swapper_pg_dir)=", b"\nNUMBER(kimage_voffset)=", b"\nNUMBER(PHYS_OFFSET)="),
    (b"\nSYMBOL(swapper_pg_dir)=", b"\nNUMBER(VA_BITS)=", b"\nNUMBER(phys_ram_base)="),
)
"""What readers need: on x86-64, AArch64 and RISC-V."""
_PIECE: Final = 4 << 20
_MOST_CHECKED: Final = 1 << 16
"""Most places to check: a hostile guest may fill its memory with the text's first word."""

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
    whole = any(all(word in text for word in words) for words in _NEEDED)
    return text if readable and whole else None
