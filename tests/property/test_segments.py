# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads at any place of any layout: unaligned, across granules and ranges, in the gaps."""

from __future__ import annotations

import errno
import itertools
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedumpfs.dumpfile import open_dump
from livedumpfs.formats import Extent, MachineInfo, MemoryRange, Plan, plan_dump
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED

PAGE = 4096
WriteDump = Callable[..., Plan]


@st.composite
def memory_maps(draw: st.DrawFn) -> tuple[MemoryRange, ...]:
    """Up to five ranges with and without gaps, in any order in the arena."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    order = draw(st.permutations(range(len(sizes))))
    offsets = [0] * len(sizes)
    position = 0
    for index in order:
        offsets[index] = position
        position += sizes[index]
    ranges, start = [], 0
    for size, offset in zip(sizes, offsets, strict=True):
        start += draw(st.sampled_from([0, 0, 1, 3]))
        ranges.append(MemoryRange(start * PAGE, size * PAGE, offset * PAGE))
        start += size
    return tuple(ranges)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[MemoryRange, ...], int, list[int], bytes]:
    """Map, granule size, states and memory; the memory of holes is zero."""
    ranges = draw(memory_maps())
    size = sum(r.size for r in ranges)
    granule = PAGE << draw(st.integers(0, 4))
    count = -(-size // granule)
    states = draw(
        st.lists(st.sampled_from([SAVED, SAVED, HOLE, LOST, ARMED]), min_size=count, max_size=count)
    )
    memory = bytearray(random.Random(draw(st.integers(0, 99))).randbytes(size))
    for i, state in enumerate(states):
        if state == HOLE:
            end = min(size, (i + 1) * granule)
            memory[i * granule : end] = bytes(end - i * granule)
    return ranges, granule, states, bytes(memory)


def positions(size: int) -> st.SearchStrategy[tuple[int, int]]:
    near = st.integers(0, size // PAGE).flatmap(
        lambda page: st.integers(max(0, page * PAGE - 2), min(size, page * PAGE + 2))
    )
    ends = st.tuples(near | st.integers(0, size), near | st.integers(0, size))
    return ends.map(lambda pair: (min(pair), max(pair) - min(pair)))


@settings(max_examples=120)
@given(case=cases(), data=st.data(), format=st.sampled_from(["elf", "raw", "kdump"]))
def test_every_read_is_right_or_an_error(
    write_dump: WriteDump,
    case: tuple[tuple[MemoryRange, ...], int, list[int], bytes],
    data: st.DataObject,
    format: str,
) -> None:
    ranges, granule, states, memory = case
    physical: dict[int, int] = {
        r.start + p: r.arena_offset + p for r in ranges for p in range(0, r.size, PAGE)
    }
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "dump"
        machine = MachineInfo("test", memory_map=ranges)
        write_dump(path, memory, format=format, granule=granule, machine=machine, states=states)
        with open_dump(path) as dump:
            assert dump.verify_checksums().ok
            for _ in range(8):
                offset, length = data.draw(positions(len(memory)))
                gone = any(
                    states[g] in (LOST, ARMED)
                    for g in range(offset // granule, -(-(offset + length) // granule))
                    if length
                )
                if gone:
                    with pytest.raises(OSError) as caught:
                        dump.read_arena(offset, length)
                    assert caught.value.errno == errno.EIO
                else:
                    assert dump.read_arena(offset, length) == memory[offset : offset + length]
                address, length = data.draw(positions(max(r.end for r in ranges) + PAGE))
                check_physical(
                    dump.read_physical, address, length, physical, states, granule, memory
                )


def check_physical(
    read: Callable[[int, int], bytes],
    address: int,
    length: int,
    physical: dict[int, int],
    states: list[int],
    granule: int,
    memory: bytes,
) -> None:
    expected = b""
    codes = set()
    position = address
    while position < address + length:
        page = position - position % PAGE
        end = min(page + PAGE, address + length)
        if page not in physical:
            codes.add(errno.EFAULT)
        elif states[physical[page] // granule] in (LOST, ARMED):
            codes.add(errno.EIO)
        else:
            offset = physical[page] + position - page
            expected += memory[offset : offset + end - position]
        position = end
    if codes:
        with pytest.raises(OSError) as caught:
            read(address, length)
        assert caught.value.errno in codes
    else:
        assert read(address, length) == expected


@settings(max_examples=200)
@given(ranges=memory_maps(), shift=st.integers(0, 6), vcpus=st.integers(0, 40))
def test_plans_cover_the_arena_once(
    ranges: tuple[MemoryRange, ...], shift: int, vcpus: int
) -> None:
    size = sum(r.size for r in ranges)
    machine = MachineInfo("test", vcpus=vcpus, memory_map=ranges)
    for format in ("elf", "raw", "kdump"):
        plan = plan_dump(format, machine, arena_size=size, granule_size=PAGE << shift)
        position = 0
        places: list[Extent] = sorted(plan.extents, key=lambda e: e.target_offset)
        for before, after in itertools.pairwise(places):
            assert before.target_offset + before.length <= after.target_offset
        for extent in plan.extents:
            assert extent.arena_offset == position
            position += extent.length
        assert position == size
        # Of a kdump they are descriptors, a page each.
        assert places[-1].target_offset + places[-1].length == (
            size if format == "kdump" else plan.total_size
        )
