# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest programs that are none, each with its sentence."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedumpfs.errors import MachineError
from livedumpfs.machines.guest_image import GuestImage
from livedumpfs.machines.unicorn import memory_map_of

NAME = Path("guest.elf")
RAM = memory_map_of(4 << 20)


def elf(
    *,
    bits: int = 2,
    order: int = 1,
    kind: int = 2,
    machine: int = 62,
    entry: int = 0x100000,
    segments: tuple[tuple[int, int, int, int], ...] = ((1, 0x100000, 4, 0x2000),),
    entry_size: int = 56,
) -> bytes:
    """An ELF file; segments are (type, address, bytes in the file, bytes in memory)."""
    head = struct.pack(
        "<4sBBB9x2HI3QI6H",
        b"\x7fELF", bits, order, 1, kind, machine, 1, entry, 64, 0, 0, 64,
        entry_size, len(segments), 0, 0, 0,
    )  # fmt: skip
    data = 64 + 56 * len(segments)
    table = b"".join(
        struct.pack("<2I6Q", t, 5, data, address, address, size, memory, 4096)
        for t, address, size, memory in segments
    )
    return head + table + b"\xf4\xf4\xf4\xf4"


def test_good() -> None:
    image = GuestImage.parse(NAME, elf())
    image.check_fits(RAM)
    (segment,) = image.segments
    assert (image.entry, segment.data, segment.end) == (0x100000, b"\xf4" * 4, 0x102000)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: b"#!/bin/sh\n", "it is not an ELF file"),
        (lambda: b"", "it is not an ELF file"),
        (lambda: elf()[:40], "it ends within its ELF header"),
        (lambda: elf(bits=1), "not 64-bit"),
        (lambda: elf(order=2), "not 64-bit little-endian"),
        (lambda: elf(machine=183), "it is for ELF machine 183, not for x86-64"),
        (lambda: elf(kind=3), "type 3, not an executable"),
        (lambda: elf(entry_size=32), "its program headers are damaged"),
        (lambda: elf()[:100], "its program headers are damaged"),
        (lambda: elf()[:-1], "it ends within its segment at 0x100000"),
        (lambda: elf(segments=((1, 0x100000, 4, 2),)), "it ends within its segment"),
        (lambda: elf(segments=((3, 0x100000, 4, 4),)), "dynamic linker"),
        (lambda: elf(entry=0x300000), "entry 0x300000 is in none of its segments"),
        (lambda: elf(segments=()), "is in none of its segments"),
        (lambda: elf(entry=0x3FF000, segments=((1, 0x3FF000, 4, 0x2000),)), "lies outside RAM"),
        (lambda: elf(entry=0x8000, segments=((1, 0x8000, 4, 4),)), "begins below 0x10000"),
    ],
)
def test_refused(make: Callable[[], bytes], sentence: str) -> None:
    with pytest.raises(MachineError) as caught:
        GuestImage.parse(NAME, make()).check_fits(RAM)
    assert str(caught.value).startswith("cannot run guest guest.elf: ")
    assert sentence in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"cannot read guest .*: No such file") as caught:
        GuestImage.load(tmp_path / "none")
    assert caught.value.errno == 2


def test_a_segment_may_lie_behind_the_hole_but_not_in_it() -> None:
    ram = memory_map_of(8 << 20, low_ram=4 << 20)
    at = 4 << 30
    GuestImage.parse(NAME, elf(entry=at, segments=((1, at, 4, 0x1000),))).check_fits(ram)
    for start in (0x3FF000, 0x400000, at - 0x1000, at + (4 << 20)):
        image = GuestImage.parse(NAME, elf(entry=start, segments=((1, start, 4, 0x2000),)))
        with pytest.raises(MachineError, match="outside RAM"):
            image.check_fits(ram)


@settings(max_examples=300)
@given(st.integers(0, 130), st.binary(min_size=1, max_size=8))
def test_damage_is_refused_or_harmless(at: int, damage: bytes) -> None:
    data = bytearray(elf())
    data[at : at + len(damage)] = damage
    try:
        image = GuestImage.parse(NAME, bytes(data))
        image.check_fits(RAM)
    except MachineError:
        return
    assert all(len(s.data) <= s.size and 0x10000 <= s.address < 4 << 20 for s in image.segments)
