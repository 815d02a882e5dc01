# SPDX-License-Identifier: GPL-2.0-or-later
"""The maximum age of a snapshot that no program takes any further, and dumps without a target at
their limit. Nothing here measures a time: what must happen is waited for, what must not is made
impossible."""

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
from livedumpfs.dump import DumpSettings, DumpState
from livedumpfs.errors import InconsistentDump, MachineError, StateError

MIB = 1 << 20
PAGE = 4096
SHORT, LONG = 0.2, 3600.0
"""Seconds: SHORT is over before a test notices the wait, and LONG never within a test, unless the
test says so."""
DEADLINE = 300.0
AGE_THREAD = "livedump-age"


def age_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == AGE_THREAD]


def until(what: Callable[[], object], live: LiveDump) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, f"{live.state}, {live.failure}, {live.expired}"
        time.sleep(0.01)


def grow_old(live: LiveDump, only: DumpState | None = None) -> None:
    """No step is taken for longer than LONG: for tests that do something before that, which a busy
    machine must have the time for. `only`: if it is in that state."""
    with live._stage.change:
        if only in (None, live.state):
            live._stage._entered -= 2 * LONG
            live._stage.change.notify_all()


@contextmanager
def dumped(size: int = MIB) -> Iterator[tuple[LiveDump, np.ndarray]]:
    """An arena of ones, and its dump. No thread of an age stays behind."""
    with Arena(size) as arena, LiveDump(arena) as live:
        bytes_ = arena.array("u1", size, name="bytes")
        bytes_[:] = 1
        yield live, bytes_
        live.release()
        until(lambda: not age_threads(), live)


def test_a_snapshot_that_nobody_sweeps_is_released() -> None:
    with dumped() as (live, memory):
        live.init(None, DumpSettings(max_age=LONG))
        live.start()
        snapshot = live.snapshot
        memory[:] = 2
        grow_old(live)
        until(lambda: live.state is DumpState.UNINIT, live)
        assert live.expired == "released: older than its maximum age of 3600 s"
        with pytest.raises(OSError) as gone:
            snapshot.read(0, PAGE)
        assert gone.value.errno == errno.ENODATA
        with pytest.raises(
            StateError, match=r"SWEEP is not possible in state UNINIT \(released: older"
        ):
            live.sweep()
        faults = live.counters().faults
        assert faults > 0
        memory[:] = 3  # nothing is protected any more
        assert live.counters().faults == faults


def test_a_finished_dump_that_nobody_releases_is_released_and_good(tmp_path: Path) -> None:
    with dumped() as (live, _):
        live.init(tmp_path / "dump", DumpSettings(max_age=LONG))
        live.start()
        live.sweep()
        live.finish(DEADLINE)
        grow_old(live)
        until(lambda: live.state is DumpState.UNINIT, live)
        assert live.verdict == "consistent"
        assert live.expired is not None
        with open_dump(tmp_path / "dump") as dump:
            assert dump.verdict == "consistent"


def test_one_that_was_never_swept_is_incomplete_on_its_target(tmp_path: Path) -> None:
    with dumped() as (live, _):
        live.init(tmp_path / "dump", DumpSettings(max_age=SHORT))
        live.start()
        until(lambda: live.state is DumpState.UNINIT, live)
        assert live.verdict == "incomplete"
        assert live.released == "released by the host in state START, before it was sealed"
        with open_dump(tmp_path / "dump.incomplete") as dump:
            assert dump.verdict == "incomplete"


def test_a_dump_that_is_only_prepared_has_no_age() -> None:
    with dumped() as (live, _):
        live.init(None, DumpSettings(max_age=SHORT))
        assert age_threads()
        time.sleep(3 * SHORT)  # time enough to be wrong in
        assert live.state is DumpState.INIT
        live.start()
        until(lambda: live.state is DumpState.UNINIT, live)


def test_a_sweep_is_not_cut_off(tmp_path: Path) -> None:
    """However old it gets; the age begins anew at its end."""
    with dumped(4 * MIB) as (live, memory):
        settings = DumpSettings(max_age=LONG, sweep_rate=4 * MIB, granule=PAGE)
        live.init(tmp_path / "dump", settings)
        live.start()
        live.sweep()
        while live.state is DumpState.SWEEP:
            grow_old(live, DumpState.SWEEP)
            live.wait(SHORT)
        assert live.state is DumpState.FINISH
        grow_old(live)
        until(lambda: live.state is DumpState.UNINIT, live)
        assert (live.verdict, live.counters().lost) == ("consistent", 0)
        with open_dump(tmp_path / "dump") as dump:
            assert dump.verdict == "consistent"
            assert (np.frombuffer(dump.read_arena(0, 4 * MIB), "u1") == 1).all()
        assert memory[0] == 1


def test_the_age_of_one_dump_does_not_end_the_next() -> None:
    with dumped() as (live, _):
        live.init(None, DumpSettings(max_age=LONG))
        live.start()
        live.release()
        assert live.expired is None
        live.init(None, DumpSettings(max_age=10 * LONG))
        live.start()
        grow_old(live)  # by the first one's standards
        until(lambda: len(age_threads()) == 1, live)
        time.sleep(SHORT)  # time enough to be wrong in
        assert live.state is DumpState.START
        live.release()
        until(lambda: not age_threads(), live)
        live.init(None)
        live.start()
        assert not age_threads()
        assert live.snapshot.read(0, PAGE) == b"\1" * PAGE


def test_after_an_expired_dump_the_next_one_is_as_always(tmp_path: Path) -> None:
    with dumped() as (live, _):
        live.init(None, DumpSettings(max_age=SHORT))
        live.start()
        until(lambda: live.state is DumpState.UNINIT, live)
        live.init(tmp_path / "dump")
        assert live.expired is None
        live.start()
        live.sweep()
        assert live.finish(DEADLINE) == "consistent"
        live.release()
        assert live.expired is None


def test_steps_and_releases_against_the_age() -> None:
    """Whichever is first: each dump ends once, and the next begins."""
    with dumped() as (live, memory):
        for n in range(60):
            live.init(None, DumpSettings(max_age=0.001 * (n % 4 + 1)))
            live.start()
            memory[:: 64 * PAGE] += 1
            try:
                live.sweep()
                live.finish(DEADLINE)
            except StateError as error:
                assert error.errno in (errno.EINVAL, errno.ECANCELED)
            live.release()
            assert live.state is DumpState.UNINIT


def test_close_does_not_wait_for_the_age() -> None:
    with Arena(MIB) as arena:
        live = LiveDump(arena)
        live.init(None, DumpSettings(max_age=LONG))
        live.start()
        live.close()
        until(lambda: not age_threads(), live)


# ------------------------------------------------------------ no target, at the limit


@pytest.mark.parametrize("policy", ["block", "spill"])
def test_memory_alone_at_its_limit_loses_pages_and_goes_on(policy: str) -> None:
    """What was overwritten first is kept; what is beyond the limit is lost, and named."""
    with dumped(4 * MIB) as (live, memory):
        settings = DumpSettings(policy=policy, spill_limit=MIB, granule=PAGE)
        live.init(None, settings)
        assert (live.settings.policy, live.settings.spill_limit) == ("spill", MIB)
        live.start()
        done = threading.Event()

        def overwrite() -> None:
            memory[:] = 2
            done.set()

        writer = threading.Thread(target=overwrite)
        writer.start()
        assert done.wait(DEADLINE), f"the machine hangs: {live.counters()}"
        writer.join(DEADLINE)
        counters = live.counters()
        assert (counters.slots_peak, counters.lost) == (MIB // PAGE, 3 * MIB // PAGE)
        assert counters.slots <= MIB // PAGE
        assert (live.verdict, live.so_far) == (None, "torn")
        assert "fits into the 1 MiB of memory" in str(live.reason)
        lost = live.lost_pages()
        assert sum(end - first for first, end in lost) == counters.lost
        assert live.describe()["lost"] == lost
        for first, end in lost:
            for page in (first, end - 1):
                with pytest.raises(OSError) as missing:
                    live.snapshot.read(page * PAGE, PAGE)
                assert missing.value.errno == errno.EIO
        gone = {page for first, end in lost for page in range(first, end)}
        for page in set(range(4 * MIB // PAGE)) - gone:
            assert live.snapshot.read(page * PAGE, PAGE) == b"\1" * PAGE
        live.sweep()
        with pytest.raises(InconsistentDump, match="the snapshot in memory is torn") as caught:
            live.finish(DEADLINE)
        assert (caught.value.verdict, caught.value.target) == ("torn", None)
        assert caught.value.lost == counters.lost
        assert live.finish(DEADLINE, check=False) == "torn"
        live.release()
        assert (live.verdict, live.released) == ("torn", "released in state FINISH")


def test_memory_alone_grows_up_to_its_limit() -> None:
    with dumped(4 * MIB) as (live, memory):
        live.init(None, DumpSettings(pool=64 * 1024, spill_limit=8 * MIB, granule=PAGE))
        live.start()
        slots = live.counters().slots
        memory[:] = 2
        counters = live.counters()
        assert slots < counters.slots_peak == 4 * MIB // PAGE
        assert (counters.lost, live.verdict, live.so_far) == (0, None, "consistent")
        assert live.snapshot.read(0, 4 * MIB) == b"\1" * (4 * MIB)
        assert live.lost_pages() == []


def test_fail_does_not_grow() -> None:
    with dumped(MIB) as (live, memory):
        live.init(None, DumpSettings(policy="fail", pool=64 * 1024, granule=PAGE))
        live.start()
        memory[:] = 2
        assert live.settings.policy == "fail"
        assert (live.counters().slots_peak, live.counters().lost) == (16, MIB // PAGE - 16)


def test_without_a_thread_to_watch_it_there_is_no_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        if thread.name == "livedump-age":
            raise RuntimeError("can't start new thread")
        start(thread)

    start = threading.Thread.start
    with dumped() as (live, _):
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(MachineError, match="age"):
            live.init(None, DumpSettings(max_age=LONG))
        assert live.state is DumpState.UNINIT
        live.init(None)
        live.start()
