# SPDX-License-Identifier: GPL-2.0-or-later
"""Images: exact bytes, and what is refused."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from livedumpfs.errors import UsageError
from livedumpfs.formats import (
    ArenaPiece,
    Image,
    Literal,
    MachineInfo,
    MemoryRange,
    lime_image,
    raw_image,
    vmcore_image,
)
from livedumpfs.formats.elf import Note, parse_registers, parse_segments

PAGE = 4096
MACHINE = MachineInfo(
    "two", vcpus=2, memory_map=(MemoryRange(0, PAGE, PAGE), MemoryRange(4 * PAGE, PAGE, 0))
)


def head(image: Image) -> bytes:
    first = image.segments[0]
    assert isinstance(first, Literal)
    return first.data


def test_lime_header_byte_by_byte() -> None:
    image = lime_image(MACHINE, 2 * PAGE)
    assert image.name == "mem.lime"
    assert image.size == 2 * (32 + PAGE)
    assert head(image) == b"EMiL" + bytes.fromhex("01000000") + bytes(8) + bytes.fromhex(
        "ff0f000000000000" + "00" * 8
    )
    second = image.segments[2]
    assert isinstance(second, Literal) and second.offset == 32 + PAGE
    assert second.data[8:24] == (4 * PAGE).to_bytes(8, "little") + (5 * PAGE - 1).to_bytes(
        8, "little"
    )
    assert image.segments[1] == ArenaPiece(32, PAGE, PAGE)


def test_raw_ends_where_memory_does() -> None:
    image = raw_image(MACHINE, 2 * PAGE)
    assert (image.name, image.size) == ("mem.raw", 5 * PAGE)
    assert image.segments == (ArenaPiece(0, PAGE, PAGE), ArenaPiece(4 * PAGE, 0, PAGE))


def test_vmcore_has_registers_and_more_notes() -> None:
    machine = replace(MACHINE, notes=(Note(b"MORE\0", 9, b"text"),))
    image = vmcore_image(machine, 2 * PAGE, [{"rip": 0x1234}, {"rsp": 2**64 - 8}])
    header = head(image)
    segments = parse_segments(header)
    assert [(s.type, s.physical, s.size) for s in segments[1:]] == [
        (1, 0, PAGE),
        (1, 4 * PAGE, PAGE),
    ]
    registers = parse_registers(header)
    assert registers[0]["rip"] == 0x1234 and registers[1]["rsp"] == 2**64 - 8
    assert header.endswith(b"MORE\0\0\0\0text")
    assert segments[0].offset + segments[0].size == len(header)


@pytest.mark.parametrize("vcpus", [0, 2, 40])
def test_readelf_has_nothing_to_say_against_it(vcpus: int, tmp_path: Path) -> None:
    """Also without any note, and with notes of several pages."""
    machine = MachineInfo("test", vcpus=vcpus, memory_map=MACHINE.memory_map)
    image = vmcore_image(machine, 2 * PAGE)
    path = tmp_path / "vmcore"
    path.write_bytes(head(image).ljust(image.size, b"\0"))
    done = subprocess.run(
        ["readelf", "-aW", path], capture_output=True, text=True, timeout=300, check=True
    )
    assert "arning" not in done.stdout + done.stderr
    assert done.stdout.count("  LOAD ") == 2
    assert done.stdout.count("NT_PRSTATUS") == vcpus


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="registers of 3 vCPUs for 2"):
        vmcore_image(MACHINE, 2 * PAGE, [{}, {}, {}])
    for builder in (vmcore_image, raw_image, lime_image):
        with pytest.raises(UsageError, match="covers 8192 of 12288"):
            builder(MACHINE, 3 * PAGE)
    with pytest.raises(UsageError, match="out of order"):
        Image("x", 10, (Literal(4, b"abc"), Literal(6, b"d")))
    with pytest.raises(UsageError, match="out of order"):
        Image("x", 10, (ArenaPiece(0, 0, 0),))
    with pytest.raises(UsageError, match="behind the file"):
        Image("x", 10, (Literal(8, b"abc"),))


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1)])
def test_negative_numbers_are_refused(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        raw_image(MACHINE, 2 * PAGE).pieces(offset, length)
