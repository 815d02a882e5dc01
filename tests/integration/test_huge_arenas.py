# SPDX-License-Identifier: GPL-2.0-or-later
"""Arenas that are made of huge pages: what a dump splits, what it must not, and what there is when
the pool is empty. test_exactness.py compares their dumps with the memory."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aftermath import wait_for

from livedumpfs import Arena, DumpSettings, LiveDump, open_dump
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.huge import HUGE_SIZE
from livedumpfs.settings import REAL_BACKENDS
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.huge_pages import available, huge_pages
from tests.fixtures.shells import Shell
from tests.fixtures.transparent_pages import (
    SETTING,
    mapped_huge,
    pages_for,
    shmem_enabled,
    transparent_pages,
)

PAGES = 8
SIZE = PAGES * HUGE_SIZE
HOLE = 3
"""The huge page that does not exist; the others do."""
DUMPS = 10
TRIES = 20
"""Other processes may have taken the pages that are for a child."""


@pytest.fixture
def thp() -> Iterator[Arena]:
    with transparent_pages(), Arena(SIZE, "thp") as arena:
        for number in range(PAGES):
            if number != HOLE:
                arena.live[number * HUGE_SIZE] = number + 1
        if whole_of(arena) != SIZE - HUGE_SIZE:
            pytest.skip(f"only {whole_of(arena)} of {SIZE} bytes came as huge pages")
        yield arena


@pytest.fixture
def pool() -> Iterator[Arena]:
    with huge_pages(PAGES), Arena(SIZE, "2M") as arena:
        yield arena


def whole_of(arena: Arena) -> int:
    """Bytes of the live view that are mapped by huge pages."""
    return mapped_huge(arena.address, arena.size)


def expect_huge(arena: Arena, expected: int) -> None:
    wait_for(lambda: whole_of(arena) == expected, lambda: whole_of(arena))


# ------------------------------------------------------------------------- transparent


def test_one_store_makes_a_huge_page(thp: Arena) -> None:
    assert thp.resident() == SIZE - HUGE_SIZE
    assert thp.page_size == PAGE_SIZE


def test_only_what_is_stored_to_is_split_and_all_is_whole_again(thp: Arena) -> None:
    """The swap arms huge entries as they are; each view has its turn in the live view's place."""
    whole = SIZE - HUGE_SIZE
    with LiveDump(thp) as live:
        for _ in range(DUMPS):
            live.init(None, DumpSettings(backend="sigsegv"))
            live.start()
            wait_for(lambda: thp.live[0] == 1, lambda: thp.live[0])
            assert live.read(HUGE_SIZE, 1) == b"\2"
            expect_huge(thp, whole)
            thp.live[HUGE_SIZE + 5] = 7
            thp.live[5 * HUGE_SIZE + PAGE_SIZE] = 7
            assert live.counters().faults == 2
            assert whole_of(thp) <= whole - 2 * HUGE_SIZE
            assert [int(thp.live[number * HUGE_SIZE]) for number in (0, 2, 7)] == [1, 3, 8]
            assert whole_of(thp) >= whole - 2 * HUGE_SIZE
            live.release()
            expect_huge(thp, whole)
    assert thp.resident() == whole


def test_a_granule_of_a_huge_page_splits_nothing(thp: Arena, tmp_path: Path) -> None:
    with LiveDump(thp) as live:
        live.init(tmp_path / "dump", DumpSettings(granule=HUGE_SIZE, backend="sigsegv"))
        live.start()
        for number in range(PAGES):
            if number != HOLE:
                thp.live[number * HUGE_SIZE] = 77
        expect_huge(thp, SIZE - HUGE_SIZE)
        live.sweep()
        assert live.finish(300) == "consistent"
    with open_dump(tmp_path / "dump") as dump, Arena.load(dump, huge="thp") as loaded:
        assert [int(loaded.live[n * HUGE_SIZE]) for n in range(4)] == [1, 2, 3, 0]
        assert whole_of(loaded) > 0


def test_where_the_kernel_gives_none() -> None:
    with shmem_enabled("never"), pytest.raises(MachineError) as caught:
        Arena(SIZE, "thp")
    assert caught.value.errno == errno.EOPNOTSUPP
    assert str(caught.value) == (
        f"cannot make an arena of 16 MiB: shared memory has no transparent huge pages: {SETTING} "
        f"is 'never' (echo advise > {SETTING})"
    )


# ------------------------------------------------------------------------- from the pool


def test_all_pages_are_taken_at_once(pool: Arena) -> None:
    assert pool.resident() == SIZE and pool.page_size == HUGE_SIZE
    assert not pool.live.any()


@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_a_dump_saves_whole_pages(pool: Arena, backend: str, tmp_path: Path) -> None:
    pool.live[:] = 1
    with LiveDump(pool) as live:
        live.init(tmp_path / "dump", DumpSettings(backend=backend, arming="swap", pool=1 << 20))
        assert live.settings.arming == "mprotect"
        live.start()
        pool.live[5] = 2
        pool.live[HUGE_SIZE - 1] = 3
        assert live.counters().granule_size == HUGE_SIZE
        wait_for(lambda: live.counters().faults == 1, live.counters)
        assert live.read(0, HUGE_SIZE) == b"\1" * HUGE_SIZE
        live.sweep()
        assert live.finish(300) == "consistent"
    with open_dump(tmp_path / "dump") as dump, Arena.load(dump) as loaded:
        assert dump.granule_size == HUGE_SIZE and (loaded.live == 1).all()


@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_the_memory_is_one_mapping_again(pool: Arena, backend: str) -> None:
    """The kernel never merges mappings of huge pages: large memory would come to its limit of
    mappings, and the next INIT too."""
    pool.live[:] = 1
    assert mappings_of(pool) == 1
    with LiveDump(pool) as live:
        for _ in range(2):
            live.init(None, DumpSettings(backend=backend))
            live.start()
            pool.live[:: 2 * HUGE_SIZE] = 2
            live.release()
    wait_for(lambda: mappings_of(pool) == 1, lambda: mappings_of(pool))
    assert (pool.live[:: 2 * HUGE_SIZE] == 2).all() and pool.live[1] == 1


def mappings_of(arena: Arena) -> int:
    """Parts of the live view that /proc names."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    starts = [int(line.split("-")[0], 16) for line in lines]
    return sum(arena.address <= one < arena.address + arena.size for one in starts)


@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_a_discard_keeps_the_pages(pool: Arena, backend: str) -> None:
    """Zeros, also of small pages in the middle; and the snapshot has what was there."""
    pool.live[:] = 9
    with LiveDump(pool) as live:
        live.init(None, DumpSettings(backend=backend))
        pool.discard(6 * HUGE_SIZE, HUGE_SIZE)
        live.start()
        pool.discard(HUGE_SIZE + PAGE_SIZE, 2 * HUGE_SIZE)
        assert live.read(HUGE_SIZE, 3 * HUGE_SIZE) == b"\11" * (3 * HUGE_SIZE)
        assert live.read(6 * HUGE_SIZE, HUGE_SIZE) == bytes(HUGE_SIZE)
    assert pool.live[HUGE_SIZE + PAGE_SIZE - 1] == 9 and pool.live[HUGE_SIZE + PAGE_SIZE] == 0
    assert int(pool.live.sum()) == 9 * (SIZE - 3 * HUGE_SIZE)
    assert pool.resident() == SIZE


def test_a_smaller_granule_is_refused(pool: Arena) -> None:
    with LiveDump(pool) as live, pytest.raises(UsageError) as caught:
        live.init(None, DumpSettings(granule=64 << 10))
    assert caught.value.errno == errno.EINVAL
    assert "64 KiB" in str(caught.value) and "2 MiB" in str(caught.value)


def test_an_empty_pool() -> None:
    """Nothing is taken then."""
    before = available()
    needed = before + PAGES
    with pytest.raises(MachineError) as caught:
        Arena(needed * HUGE_SIZE, "2M")
    if caught.value.errno == errno.EOPNOTSUPP:
        pytest.skip(str(caught.value))
    assert caught.value.errno == errno.ENOSPC
    assert f"needs {needed} huge pages of 2 MiB, and " in str(caught.value)
    assert "> /proc/sys/vm/nr_hugepages" in caught.value.hint


def in_child(work: Callable[[], bool]) -> int:
    """The status of a forked child; 0: it did that, and it was so."""
    child = os.fork()
    if not child:
        os._exit(not work())
    return os.waitpid(child, 0)[1]


def test_a_child_writes_where_the_pool_has_as_many_again(
    pool: Arena, capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise it only reads, and a store ends it by SIGSEGV, never by SIGBUS. Other processes
    take pages of the pool and give some back at any time."""

    def store() -> bool:
        pool.live[::PAGE_SIZE] = 2
        return bool((pool.live[::PAGE_SIZE] == 2).all())

    pool.live[:] = 1
    with huge_pages(PAGES):
        assert any(in_child(store) == 0 for _ in range(TRIES))
    capfd.readouterr()
    assert (pool.live == 1).all()
    assert in_child(lambda: bool((pool.live == 1).all())) == 0
    status = in_child(store)
    assert status in (0, signal.SIGSEGV)
    assert (status != 0) == ("free huge pages" in capfd.readouterr().err)


# ------------------------------------------------------------------------- the command


def test_a_childs_child_ends_with_our_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """What was set aside for the child is not for its children: SIGBUS would say nothing."""
    with huge_pages(2 * PAGES), Arena(SIZE, "2M") as arena:
        arena.live[:] = 1

        def has_a_child_that_reads() -> bool:
            arena.live[0] = 2
            return in_child(lambda: bool(arena.live[1] == 1)) == signal.SIGSEGV

        status = in_child(has_a_child_that_reads)
        assert status in (0, signal.SIGSEGV)  # the pool may be another program's meanwhile
        assert arena.live[0] == 1
    assert "this child process ends by SIGSEGV" in capfd.readouterr().err


def test_dumps_do_not_wait_for_discards(pool: Arena) -> None:
    """Each is a store, and may take long: four threads are always in one."""
    over = threading.Event()

    def discard() -> None:
        while not over.is_set():
            pool.discard(0, SIZE)

    threads = [threading.Thread(target=discard) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with LiveDump(pool) as live:
            for _ in range(DUMPS):
                live.init(None)  # refused while RELEASE waits for the last dump
                live.start()
                live.release()
    finally:
        over.set()
        for thread in threads:
            thread.join(300)
    assert not pool.live.any()


@pytest.mark.parametrize("huge", ["thp", "2M"])
def test_a_host_with_huge_pages(huge: str, shell: Shell, tmp_path: Path) -> None:
    target = tmp_path / "dump"
    with pages_for(huge, SIZE):  # type: ignore[arg-type]
        process, _ = shell.host("--ram", str(SIZE), "--idle", "--huge", huge)
        shell.run("dump", str(target))
        process.terminate()
        assert process.wait(timeout=300) == 0
    assert "consistent" in shell.run("verify", str(target))[0]
    with open_dump(target) as dump:
        assert dump.granule_size == (HUGE_SIZE if huge == "2M" else 64 << 10)


def test_a_host_that_cannot_have_them(shell: Shell) -> None:
    assert "that is no multiple of 2 MiB" in shell.fails(
        "host", "--ram", "9M", "--huge", "2M", code=2
    )
