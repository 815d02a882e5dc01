# SPDX-License-Identifier: GPL-2.0-or-later
"""A program's own numpy arrays as the machine."""

from __future__ import annotations

import errno
import gc
import io
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings, DumpState
from livedumpfs.errors import MachineError, StateError, UsageError
from livedumpfs.settings import REAL_BACKENDS
from livedumpfs.units import PAGE_SIZE

MIB = 1 << 20


class Writers:
    """Threads that keep adding one to every element, and can be held between two rounds."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self._gate = threading.Condition()
        self._held = self._parked = 0
        self._end = False
        self._threads = [threading.Thread(target=self._run, args=(a,)) for a in arrays]
        for thread in self._threads:
            thread.start()

    def _run(self, array: np.ndarray) -> None:
        while not self._end:
            with self._gate:
                self._parked += 1
                self._gate.notify_all()
                self._gate.wait_for(lambda: not self._held, 300)
                self._parked -= 1
            array += 1

    def quiesce(self) -> None:
        with self._gate:
            self._held = 1
            assert self._gate.wait_for(lambda: self._parked == len(self._threads), 300)

    def resume(self) -> None:
        with self._gate:
            self._held = 0
            self._gate.notify_all()

    def close(self) -> None:
        self._end = True
        self.resume()
        for thread in self._threads:
            thread.join(300)


def until_written(live: LiveDump) -> None:
    """On busy cores a whole dump can pass before the writers are scheduled again."""
    end = time.monotonic() + 30
    while live.counters().faults == 0:
        assert time.monotonic() < end, live.counters()
        time.sleep(0.001)


@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_arrays_come_back_as_they_were_at_the_instant(tmp_path: Path, backend: str) -> None:
    point = np.dtype([("x", "<f8"), ("n", "<i4", (3,))])
    with Arena("32MiB") as arena:
        a = arena.array("i8", (1024, 1024), name="a")
        b = arena.array(np.int32, 1 << 20, name="b")
        c = arena.array(point, 7, name="c")
        arena.array("u1", 100)
        c["n"][:] = 5
        writers = Writers([a, b])
        seen: list[tuple[int, int]] = []

        def quiesce() -> None:
            writers.quiesce()
            seen.append((int(a[0, 0]), int(b[0])))

        live = LiveDump(arena, quiesce=quiesce, resume=writers.resume)
        try:
            for n in range(5):
                live.init(tmp_path / "dump", DumpSettings(granule=4096 << n, backend=backend))
                live.start()
                until_written(live)
                live.sweep()
                assert live.finish(300) == "consistent"
                live.release()
                with open_dump(tmp_path / "dump") as dump, Arena.load(dump) as loaded:
                    arrays = loaded.arrays
                    assert set(arrays) == {"a", "b", "c"}
                    assert arrays["a"].shape == (1024, 1024) and arrays["a"].dtype == np.int64
                    # Every element of one round: one instant, and the very one that quiesce saw.
                    assert (arrays["a"] == seen[-1][0]).all()
                    assert (arrays["b"] == seen[-1][1]).all()
                    assert arrays["c"].dtype == point and (arrays["c"]["n"] == 5).all()
                    with pytest.raises(UsageError, match="no room"):
                        loaded.array("u1", 32 * MIB)
        finally:
            live.release()
            writers.close()


def test_an_exception_of_quiesce_passes_through_and_nothing_is_armed(tmp_path: Path) -> None:
    with Arena(MIB) as arena:
        a = arena.array("u1", MIB)

        def refuse() -> None:
            raise RuntimeError("not now")

        with LiveDump(arena, quiesce=refuse) as live:
            live.init(tmp_path / "dump")
            with pytest.raises(RuntimeError, match="not now"):
                live.start()
            assert live.state is DumpState.INIT
            a[:] = 1
            assert live.counters().faults == 0


def test_system_calls_into_armed_memory(tmp_path: Path) -> None:
    """EFAULT as documented, and `writable` is the way round it, which saves the old bytes."""
    data = os.urandom(PAGE_SIZE)
    source = tmp_path / "source"
    source.write_bytes(data)
    with Arena(MIB) as arena, LiveDump(arena) as live:
        a = arena.array("u1", MIB, name="a")
        a[:] = 7
        live.init(tmp_path / "dump")
        live.start()
        with open(source, "rb", buffering=0) as file:
            with pytest.raises(OSError) as caught:
                file.readinto(memoryview(a)[PAGE_SIZE : 2 * PAGE_SIZE])
            assert caught.value.errno == errno.EFAULT
            arena.writable(PAGE_SIZE, PAGE_SIZE)
            assert file.readinto(memoryview(a)[PAGE_SIZE : 2 * PAGE_SIZE]) == PAGE_SIZE
        assert bytes(a[PAGE_SIZE : 2 * PAGE_SIZE]) == data
        live.sweep()
        assert live.finish(300) == "consistent"
        with open_dump(tmp_path / "dump") as dump:
            assert (dump.array("a") == 7).all()
        with pytest.raises(UsageError):
            arena.writable(MIB, 1)


@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_without_a_target_the_snapshot_lives_in_memory(backend: str) -> None:
    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        a = arena.array("u1", 4 * MIB)
        a[:] = 1
        settings = DumpSettings(granule=PAGE_SIZE, pool=MIB, spill_limit=MIB, backend=backend)
        live.init(None, settings)
        with pytest.raises(OSError) as caught:
            live.read(0, 1)
        assert caught.value.errno == errno.ENODATA
        live.start()
        a[:MIB] = 2
        assert live.read(0, 4 * MIB).count(1) == 4 * MIB
        assert (live.verdict, live.so_far) == (None, "consistent")
        a[MIB] = 2  # nothing could ever free a slot: this granule is lost, and no thread hangs
        assert live.so_far == "torn" and live.counters().lost == 1
        with pytest.raises(OSError) as caught:
            live.read(MIB, 1)
        assert caught.value.errno == errno.EIO
        assert live.read(2 * MIB, MIB).count(1) == MIB
        live.sweep()
        assert live.state is DumpState.FINISH
        live.release()
        with pytest.raises(OSError) as caught:
            live.read(0, 1)
        assert caught.value.errno == errno.ENODATA


def test_dense_stores_fault_less_often_than_they_meet_granules() -> None:
    """Fault-around: n faults open n * n granules of a block of 8 MiB, where each has a slot."""
    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        live.init(None, DumpSettings(granule=16 << 10, pool=4 * MIB))
        live.start()
        arena.live[:MIB:PAGE_SIZE] = 2
        assert live.counters().faults == 8
        arena.live[::PAGE_SIZE] = 2
        assert live.counters().faults == 16
        assert live.read(0, 4 * MIB).count(1) == 4 * MIB and live.counters().lost == 0


def test_one_store_waits_for_few_neighbours() -> None:
    """However many faults there were: at the most 1 MiB of them."""
    with Arena(8 * MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        live.init(None, DumpSettings(granule=256 << 10, pool=8 * MIB))
        live.start()
        for faults, opened in enumerate((1, 4, 9, 14, 19, 24, 29, 32), 1):
            arena.live[: opened * (256 << 10) : PAGE_SIZE] = 2
            assert live.counters().faults == faults
            assert live.counters().slots_peak == opened


@pytest.mark.parametrize("policy", ["block", "fail"])
@pytest.mark.parametrize("step", [2, 8])
@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_what_nobody_stored_to_takes_no_slot_that_a_store_needs(
    backend: str, policy: str, step: int
) -> None:
    """Nothing frees a slot here, and there are just as many as granules are stored to."""
    with Arena(16 * MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        pool = 16 * MIB // step
        live.init(None, DumpSettings(granule=PAGE_SIZE, pool=pool, policy=policy, backend=backend))
        live.start()
        arena.live[:: step * PAGE_SIZE] = 2
        assert live.counters().lost == 0
        assert live.read(0, 16 * MIB).count(1) == 16 * MIB


@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_the_next_dump_after_a_release_under_a_reader(tmp_path: Path, backend: str) -> None:
    """A reader has left the core, and has not come back to Python yet: for a busy program that can
    take a while. RELEASE returns when arena and target can be had again."""
    inside, leave = threading.Event(), threading.Event()
    with Arena(MIB) as arena, LiveDump(arena) as live:
        live.init(tmp_path / "dump", DumpSettings(backend=backend))
        live.start()
        core = live._run.core  # type: ignore[union-attr]

        def linger() -> None:
            with core._using():  # type: ignore[union-attr]
                inside.set()
                leave.wait(300)

        reader = threading.Thread(target=linger)
        reader.start()
        assert inside.wait(300)
        threading.Timer(0.05, leave.set).start()
        live.release()
        reader.join(300)
        assert live.save(tmp_path / "dump") == "consistent"


def test_the_order_of_the_steps(tmp_path: Path) -> None:
    def refused(code: int, step: object) -> None:
        with pytest.raises(StateError) as caught:
            step()  # type: ignore[operator]
        assert caught.value.errno == code

    with Arena(MIB) as arena, LiveDump(arena) as live:
        for step in (live.start, live.sweep, live.finish):
            refused(errno.EINVAL, step)
        live.release()
        live.init(tmp_path / "dump")
        for step in (live.sweep, live.finish):
            refused(errno.EINVAL, step)
        refused(errno.EBUSY, lambda: live.init(tmp_path / "other"))
        assert not (tmp_path / "other").exists()
        refused(errno.EBUSY, lambda: LiveDump(arena).init(tmp_path / "other"))
        live.start()
        for step in (live.start, live.finish):
            refused(errno.EINVAL, step)
        live.sweep()
        for step in (live.start, live.sweep):
            refused(errno.EINVAL, step)
        assert live.finish(300) == "consistent"
        refused(errno.EBUSY, lambda: live.init(tmp_path / "other"))
        live.release()
        live.release()
        refused(errno.EINVAL, live.start)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_release_from_every_state_leaves_an_incomplete_dump_and_a_free_machine(
    tmp_path: Path, backend: str, steps: int
) -> None:
    with Arena(16 * MIB) as arena, LiveDump(arena) as live:
        a = arena.array("u1", 16 * MIB, name="a")
        a[:] = 1
        live.init(tmp_path / "dump", DumpSettings(sweep_rate=MIB, backend=backend))
        for step in (live.start, live.sweep)[: steps - 1]:
            step()
        live.release()
        assert live.state is DumpState.UNINIT and live.verdict == "incomplete"
        before = live.counters().faults
        a[:] = 2
        assert live.counters().faults == before
        with open("/dev/zero", "rb") as file:
            # A system call writes everywhere: nothing is protected any more.
            assert io.FileIO(file.fileno(), closefd=False).readinto(memoryview(a)) > 0
        if steps > 1:
            with open_dump(tmp_path / "dump.incomplete") as dump:
                assert dump.verdict == "incomplete" and not dump.sealed
        assert not (tmp_path / "dump").exists()
        assert live.save(tmp_path / "dump", DumpSettings(backend=backend)) == "consistent"


def test_arrays_outlive_the_arena() -> None:
    arena = Arena(MIB)
    a = arena.array("u1", MIB)
    arena.close()
    arena.close()
    gc.collect()
    a[:] = 3
    assert int(a.sum()) == 3 * MIB
    with pytest.raises(UsageError, match="closed"):
        arena.resident()
    with pytest.raises(UsageError, match="closed"):
        arena.array("u1", 1)


def test_what_an_arena_refuses() -> None:
    for size in ("a lot", 0):
        with pytest.raises((UsageError, MachineError)):
            Arena(size)
    with Arena(1) as arena:
        assert arena.size == PAGE_SIZE
        arena.array("u1", 1, name="one")
        for bad in (
            lambda: arena.array(object, 1),
            lambda: arena.array("u1", 1, name="one"),
            lambda: arena.array("u1", PAGE_SIZE),
            lambda: arena.read(0, PAGE_SIZE + 1),
        ):
            with pytest.raises(ValueError):
                bad()
