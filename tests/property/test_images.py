# SPDX-License-Identifier: GPL-2.0-or-later
"""Images at any offset and length: unaligned, across segments, at the ends, in the gaps."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import partial

from hypothesis import example, given
from hypothesis import strategies as st

from livedumpfs.formats import (
    ArenaPiece,
    Gap,
    Image,
    Literal,
    MachineInfo,
    MemoryRange,
    lime_image,
    raw_image,
    vmcore_image,
)
from livedumpfs.formats.snapshot_files import ImageFile, SnapshotFiles

PAGE = 4096
ARENA = random.Random(3).randbytes(64 * PAGE)


def read_arena(offset: int, length: int) -> bytes:
    assert offset >= 0 and offset + length <= len(ARENA)
    return ARENA[offset : offset + length]


def read_into(offset: int, view: memoryview) -> None:
    view[:] = read_arena(offset, len(view))


@st.composite
def images(draw: st.DrawFn) -> tuple[Image, bytes]:
    """Any image, and the whole file, made in another way."""
    content = bytearray()
    segments: list[Literal | ArenaPiece] = []
    for _ in range(draw(st.integers(0, 6))):
        content += bytes(draw(st.sampled_from([0, 0, 1, 7, 5000])))
        length = draw(st.integers(1, 9000))
        start = draw(st.integers(0, len(ARENA) - length))
        if draw(st.booleans()):
            segments.append(Literal(len(content), ARENA[start : start + length]))
        else:
            segments.append(ArenaPiece(len(content), start, length))
        content += ARENA[start : start + length]
    content += bytes(draw(st.sampled_from([0, 1, 4096])))
    return Image("any", len(content), tuple(segments)), bytes(content)


@st.composite
def machines(draw: st.DrawFn) -> MachineInfo:
    """Up to five ranges, with and without gaps, in any order in the arena."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    offsets, position = [0] * len(sizes), 0
    for index in draw(st.permutations(range(len(sizes)))):
        offsets[index] = position
        position += sizes[index]
    ranges, start = [], 0
    for size, offset in zip(sizes, offsets, strict=True):
        start += draw(st.sampled_from([0, 0, 1, 3]))
        ranges.append(MemoryRange(start * PAGE, size * PAGE, offset * PAGE))
        start += size
    return MachineInfo("test", vcpus=draw(st.integers(0, 2)), memory_map=tuple(ranges))


def arena_size(machine: MachineInfo) -> int:
    return sum(r.size for r in machine.memory_map)


def whole(image: Image) -> bytes:
    return SnapshotFiles([image], partial(ImageFile, read=read_into), dict).pread(
        image.name, 0, image.size
    )


@given(images(), st.data())
def test_any_range_is_that_part_of_the_file(made: tuple[Image, bytes], data: st.DataObject) -> None:
    image, content = made
    edges = sorted({0, len(content), *(s.offset + d for s in image.segments for d in (-1, 0, 1))})
    near = st.sampled_from([e for e in edges if e >= 0])
    offset = data.draw(near | st.integers(0, len(content) + 10))
    length = data.draw(st.integers(0, len(content) + 10) | st.sampled_from([0, 1, 2]))
    files = SnapshotFiles([image], partial(ImageFile, read=read_into), dict)
    assert files.pread("any", offset, length) == content[offset : offset + length]


@given(images(), st.integers(0, 60000), st.integers(0, 60000))
def test_pieces_follow_each_other(made: tuple[Image, bytes], offset: int, length: int) -> None:
    image, content = made
    at = offset
    for piece in image.pieces(offset, length):
        assert piece.offset == at and piece.length > 0
        at += piece.length
    assert at == max(offset, min(offset + length, len(content)))


@given(machines())
@example(MachineInfo.flat("flat", PAGE))
def test_raw_is_the_memory_by_physical_address(machine: MachineInfo) -> None:
    content = whole(raw_image(machine, arena_size(machine)))
    expected = bytearray(max(r.end for r in machine.memory_map))
    for r in machine.memory_map:
        expected[r.start : r.end] = ARENA[r.arena_offset : r.arena_offset + r.size]
    assert content == expected


@given(machines())
def test_lime_is_read_back_by_its_own_headers(machine: MachineInfo) -> None:
    content = whole(lime_image(machine, arena_size(machine)))
    position, found = 0, []
    while position < len(content):
        magic, version, first, last, reserved = struct.unpack_from("<IIQQ8s", content, position)
        assert (magic, version, reserved) == (0x4C694D45, 1, bytes(8))
        position += 32
        found.append((first, content[position : position + last - first + 1]))
        position += last - first + 1
    assert position == len(content)
    assert found == [
        (r.start, ARENA[r.arena_offset : r.arena_offset + r.size]) for r in machine.memory_map
    ]


@given(machines())
def test_a_vmcore_is_read_back_by_its_program_headers(machine: MachineInfo) -> None:
    content = whole(vmcore_image(machine, arena_size(machine), [{"rip": 7}] * machine.vcpus))
    assert content[:4] == b"\x7fELF"
    (count,) = struct.unpack_from("<H", content, 56)
    loads = []
    for i in range(count):
        kind, _, offset, virtual, physical, size, memory, _ = struct.unpack_from(
            "<IIQQQQQQ", content, 64 + 56 * i
        )
        assert offset + size <= len(content)
        if kind == 1:
            assert size == memory and virtual == physical and offset % PAGE == 0
            loads.append((physical, content[offset : offset + size]))
    assert loads == [
        (r.start, ARENA[r.arena_offset : r.arena_offset + r.size]) for r in machine.memory_map
    ]


@given(machines(), st.data(), st.sampled_from([vmcore_image, raw_image, lime_image]))
def test_any_range_of_each_file_is_that_part_of_it(
    machine: MachineInfo, data: st.DataObject, build: Callable[[MachineInfo, int], Image]
) -> None:
    """Unaligned, across segments, in the gaps, at the ends and behind; whatever the buffer held."""
    image = build(machine, arena_size(machine))
    content = whole(image)
    file = SnapshotFiles([image], partial(ImageFile, read=read_into), dict).open(image.name)
    bounds = [0, len(content)]
    for one in image.segments:
        bounds += [one.offset, one.offset + one.length]
    near = st.builds(lambda a, b: max(0, a + b), st.sampled_from(bounds), st.integers(-5, 5))
    place = near | st.integers(0, len(content) + PAGE)
    for _ in range(5):
        first, second = data.draw(place), data.draw(place)
        at, length = min(first, second), abs(first - second)
        buffer = bytearray(b"\xa5" * length)
        count = file.read_into(at, memoryview(buffer))
        assert buffer[:count] == content[at : at + length]
        assert buffer[count:] == b"\xa5" * (length - count)


@given(machines(), st.data())
def test_gaps_of_raw_are_gaps(machine: MachineInfo, data: st.DataObject) -> None:
    """No arena is read for them."""
    image = raw_image(machine, arena_size(machine))
    at = data.draw(st.integers(0, image.size - 1))
    covered = any(r.start <= at < r.end for r in machine.memory_map)
    (piece,) = image.pieces(at, 1)
    assert isinstance(piece, ArenaPiece if covered else Gap)
