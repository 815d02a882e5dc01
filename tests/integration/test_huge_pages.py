# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that was mapped by huge pages before a dump is so again after it, at no cost in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
from aftermath import wait_for

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.transparent_pages import MADV_COLLAPSE, libc, mapped_huge

MIB = 1 << 20
HUGE = 2 * MIB
SIZE = 32 * MIB
WHOLE = (0, 1, 2, 5, 9, 15)
"""Numbers of the huge pages; between them are holes, and one stretch of small pages."""
SMALL = 7


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena(SIZE) as arena:
        for number in WHOLE:
            arena.live[number * HUGE : (number + 1) * HUGE] = number + 1
            if libc.madvise(arena.address + number * HUGE, HUGE, MADV_COLLAPSE):
                pytest.skip(f"no huge page of shared memory to be had: errno {ctypes.get_errno()}")
        arena.live[SMALL * HUGE : (SMALL + 1) * HUGE] = 1
        assert mapped_huge(arena.address) == len(WHOLE) * HUGE
        yield arena


def expect_huge(arena: Arena, expected: int) -> None:
    wait_for(lambda: mapped_huge(arena.address) == expected, lambda: mapped_huge(arena.address))


def dump_once(arena: Arena, live: LiveDump, settings: DumpSettings) -> None:
    """Splits every huge page: by its first and by its last page."""
    live.init(None, settings)
    live.start()
    for number in WHOLE:
        arena.live[number * HUGE] = 77
        arena.live[(number + 1) * HUGE - 1] = 78
        assert live.read(number * HUGE + 1, 1) == bytes([number + 1])
    assert mapped_huge(arena.address) < len(WHOLE) * HUGE, "or this test shows nothing"


@pytest.mark.parametrize("arming", ["swap", "mprotect"])
@pytest.mark.parametrize("backend", ["sigsegv", "uffd", "sigbus"])
def test_huge_mappings_come_back(arena: Arena, backend: str, arming: str) -> None:
    """After each of some dumps, as many take turns in the view's place."""
    settings = DumpSettings(granule=PAGE_SIZE, backend=backend, arming=arming)
    resident, expected = arena.resident(), len(WHOLE) * HUGE
    with LiveDump(arena) as live:
        for _ in range(4):
            dump_once(arena, live, settings)
            live.release()
            expect_huge(arena, expected)
    assert arena.resident() == resident, "a hole was filled, or a page allocated"
    assert arena.live[WHOLE[1] * HUGE] == 77 and arena.live[WHOLE[-1] * HUGE + 1] == WHOLE[-1] + 1


def test_what_was_discarded_stays_a_hole(arena: Arena) -> None:
    """A huge page with a hole in it is none any more: to make it one would take memory again."""
    with LiveDump(arena) as live:
        dump_once(arena, live, DumpSettings(granule=PAGE_SIZE))
        arena.discard(WHOLE[2] * HUGE + 64 * PAGE_SIZE, PAGE_SIZE)
        arena.discard(WHOLE[3] * HUGE, HUGE)
        resident = arena.resident()
        live.release()
        expect_huge(arena, (len(WHOLE) - 2) * HUGE)
    assert arena.resident() == resident


def test_the_next_dump_and_the_end_do_not_wait_for_it(arena: Arena) -> None:
    """However far it has come: INIT and the arena's end find it at work, or done."""
    with LiveDump(arena) as live:
        for _ in range(40):
            live.init(None, DumpSettings(granule=64 << 10))
            live.start()
            arena.live[:: 64 << 10] = 5
            live.release()
        expect_huge(arena, len(WHOLE) * HUGE)
