# SPDX-License-Identifier: GPL-2.0-or-later
"""A pool that follows the memory that is free: it grows before stores have to wait, gives back what
it does not need, and without a target its limit holds the machine if that is asked for."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.dumpfile.describe import describe_dump, format_description
from livedumpfs.errors import UsageError
from livedumpfs.machines import ThreadMachine
from livedumpfs.units import format_size

MIB = 1 << 20
PAGE = 4096
GRANULE = 65536
DEADLINE = 300.0


@contextmanager
def dumped(size: int) -> Iterator[tuple[LiveDump, np.ndarray]]:
    with Arena(size) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        yield live, arena.live


def until(what: Callable[[], object], live: LiveDump) -> None:
    end = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < end, f"in vain: {live.counters()}"
        time.sleep(0.001)


def test_it_grows_and_gives_back(tmp_path: Path) -> None:
    """With more than INIT makes in slots, and a sweep that writes none of them before."""
    with dumped(160 * MIB) as (live, memory):
        live.init(tmp_path / "dump", DumpSettings(granule=GRANULE))
        assert live.settings.pool == "auto"
        first = live.counters().slots
        assert first == 64 * MIB // GRANULE
        live.start()
        for at in range(0, 160 * MIB, MIB):
            memory[at : at + MIB : GRANULE] = 2
        most = live.counters().slots_most
        live.sweep()
        assert live.finish(DEADLINE) == "consistent"
        until(lambda: live.counters().slots == first, live)
        counters = live.counters()
        assert counters.slots_most >= most >= counters.slots_peak
        live.release()
        with open_dump(tmp_path / "dump") as dump:
            assert all(dump.read_arena(at, MIB) == b"\1" * MIB for at in range(0, 160 * MIB, MIB))
            text = format_description(describe_dump(dump))
        assert f"{format_size(counters.slots_most * GRANULE)} at most" in text


def test_a_pool_of_a_set_size_stays(tmp_path: Path) -> None:
    with dumped(8 * MIB) as (live, memory):
        live.init(tmp_path / "dump", DumpSettings(granule=GRANULE, pool=MIB))
        live.start()
        live.sweep()
        memory[:] = 2
        assert live.finish(DEADLINE) == "consistent"
        assert live.counters().slots_most == live.counters().slots == MIB // GRANULE


def test_what_target_and_memory_cannot_hold_waits(tmp_path: Path) -> None:
    """A limit that is set is a limit of `auto` too; with a target nothing is lost there."""
    with dumped(8 * MIB) as (live, memory):
        live.init(tmp_path / "dump", DumpSettings(granule=GRANULE, spill_limit=MIB))
        live.start()
        live.sweep()
        memory[:] = 2
        assert live.finish(DEADLINE) == "consistent"
        assert live.counters().slots_most <= MIB // GRANULE


# ------------------------------------------------------------------ held at the limit


class NumpyThreads(ThreadMachine):
    """A large assignment of numpy lets the interpreter go while it stores."""

    stores_from_python = False


@contextmanager
def held(size: int) -> Iterator[tuple[LiveDump, np.ndarray]]:
    with Arena(size) as arena, LiveDump(NumpyThreads(arena)) as live:
        arena.live[:] = 1
        yield live, arena.live


def test_python_threads_are_not_held() -> None:
    """They would keep the interpreter, and the release would never come."""
    with dumped(4 * MIB) as (live, memory):
        with pytest.raises(UsageError, match="keeps the interpreter") as caught:
            live.init(None, DumpSettings(at_limit="hold"))
        assert caught.value.errno == errno.EINVAL
        live.init(None, DumpSettings())
        live.start()
        memory[:] = 2
        assert live.so_far == "consistent"


def overwrite(memory: np.ndarray) -> threading.Thread:
    def store() -> None:
        memory[:] = 2

    thread = threading.Thread(target=store)
    thread.start()
    return thread


def test_hold_waits_for_the_release() -> None:
    """All that fits was saved, and nothing is lost while it waits."""
    with held(4 * MIB) as (live, memory):
        settings = DumpSettings(spill_limit=MIB, granule=PAGE, at_limit="hold")
        live.init(None, settings)
        live.start()
        writer = overwrite(memory)
        until(lambda: live.counters().slot_waits, live)
        assert writer.is_alive()
        assert (live.counters().slots_peak, live.so_far) == (MIB // PAGE, "consistent")
        assert live.snapshot.read(0, 4 * MIB) == b"\1" * (4 * MIB)
        live.release()
        writer.join(DEADLINE)
        assert not writer.is_alive() and (memory == 2).all()


@pytest.mark.parametrize("pool", ["auto", 64 * 1024])
def test_hold_loses_after_its_deadline_and_says_so(pool: int) -> None:
    with held(4 * MIB) as (live, memory):
        settings = DumpSettings(
            pool=pool, spill_limit=MIB, granule=PAGE, at_limit="hold", stall_deadline=0.05
        )
        live.init(None, settings)
        live.start()
        writer = overwrite(memory)
        writer.join(DEADLINE)
        assert not writer.is_alive(), live.counters()
        counters = live.counters()
        assert counters.lost == 3 * MIB // PAGE and live.so_far == "torn"
        assert "0.05 s" in str(live.reason) and "released" in str(live.reason)
        live.release()
