# SPDX-License-Identifier: GPL-2.0-or-later
"""A program's own numpy arrays as the machine."""

from __future__ import annotations

import ctypes
import errno
import gc
import io
import mmap
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.core.capi import lib
from livedumpfs.dump import DumpSettings, DumpState, preparation
from livedumpfs.dump import core_dump as core_module
from livedumpfs.dump.core_dump import Core
from livedumpfs.errors import InvalidDump, MachineError, StateError, TargetError, UsageError
from livedumpfs.machines import ThreadMachine
from livedumpfs.rights.folder import Folder
from livedumpfs.settings import BACKENDS
from livedumpfs.targets import Target
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


@pytest.mark.parametrize("backend", BACKENDS)
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


def test_discards_while_userfaultfd_is_prepared() -> None:
    """INIT of an arena's first dump makes the userfaultfd, and the view that waits for START:
    whoever punches meanwhile neither fails nor leaves a page unprotected."""
    end, punched, errors = threading.Event(), threading.Semaphore(0), []

    def punch(arena: Arena) -> None:
        try:
            while not end.is_set():
                arena.discard(MIB, MIB)
                punched.release()
        except MachineError as error:
            errors.append(error)
            punched.release()

    for _ in range(20):
        end.clear()
        with Arena(32 * MIB) as arena, LiveDump(arena) as live:
            a = arena.array("u1", 32 * MIB)
            a[:] = 3
            thread = threading.Thread(target=punch, args=(arena,))
            thread.start()
            try:
                assert punched.acquire(timeout=300)
                live.init(None, DumpSettings(backend="uffd", pool=32 * MIB))
            finally:
                end.set()
                thread.join(300)
            assert not errors, errors
            live.start()
            a[:] = 4
            assert live.read(MIB, MIB) == bytes(MIB)
            assert live.read(2 * MIB, 30 * MIB).count(3) == 30 * MIB


@pytest.mark.parametrize("format", ["elf", "raw"])
@pytest.mark.parametrize("arming", ["swap", "mprotect"])
@pytest.mark.parametrize("granule", [4096, 65536])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sparse_arena_stays_sparse(
    tmp_path: Path, backend: str, granule: int, arming: str, format: str
) -> None:
    """INIT, START, SWEEP, RELEASE and reading allocate no hole; neither does the fault path."""
    size = 256 * MIB
    with Arena(size) as arena, LiveDump(arena) as live:
        a = arena.array("u1", size, name="a")
        written = range(3 * PAGE_SIZE, size, 5 * MIB + PAGE_SIZE)
        for at in written:
            a[at] = 1
        resident = arena.resident()
        assert resident == len(written) * PAGE_SIZE
        settings = DumpSettings(granule=granule, arming=arming, format=format, backend=backend)
        for _ in range(2):
            live.init(tmp_path / "dump", settings)
            live.start()
            for at in written:
                a[at] += 1  # these pages exist: the fault copies their granule, holes and all
            assert live.read(0, 8 * MIB).count(0) >= 8 * MIB - 2
            live.sweep()
            assert live.finish(300) == "consistent"
            live.release()
            assert arena.resident() == resident
        assert live.counters().holes > live.counters().granules // 2
        stored = os.stat(tmp_path / "dump").st_blocks * 512
        assert stored < resident * (granule // PAGE_SIZE) + 8 * MIB
        with open_dump(tmp_path / "dump") as dump:
            found = dump.array("a")
            assert np.flatnonzero(found).tolist() == list(written) and (found[found > 0] == 2).all()


def test_a_device_with_an_older_dump_shows_zeros_where_the_new_one_has_holes(
    loop_device: object,
) -> None:
    device = loop_device(48 * MIB)  # type: ignore[operator]
    with Arena(32 * MIB) as arena, LiveDump(arena) as live:
        a = arena.array("u1", 32 * MIB, name="a")
        a[:] = 0xAA
        assert live.save(device) == "consistent"
        arena.discard(4 * MIB, 20 * MIB)
        assert live.save(device, DumpSettings(force=True)) == "consistent"
        assert live.counters().holes > 0
    with open_dump(device) as dump:
        data = bytearray(32 * MIB)
        dump.read_stored(0, memoryview(data))
        assert data[4 * MIB : 24 * MIB].count(0) == 20 * MIB
        assert data[: 4 * MIB].count(0xAA) == 4 * MIB


@pytest.mark.parametrize("backend", BACKENDS)
def test_discard_during_a_dump_saves_first(tmp_path: Path, backend: str) -> None:
    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        a = arena.array("u1", 4 * MIB, name="a")
        a[:] = 9
        live.init(tmp_path / "dump", DumpSettings(backend=backend))
        live.start()
        arena.discard(MIB, MIB)
        assert arena.resident() == 3 * MIB
        assert live.read(MIB, MIB).count(9) == MIB
        a[: 3 * MIB] = 8  # what comes back after the discard is not the snapshot's
        assert live.read(0, 4 * MIB).count(9) == 4 * MIB
        live.sweep()
        assert live.finish(300) == "consistent"
        with open_dump(tmp_path / "dump") as dump:
            assert (dump.array("a") == 9).all()
        with pytest.raises(UsageError):
            arena.discard(1, PAGE_SIZE)


def vm_flags(address: int) -> set[str]:
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            start, end = (int(one, 16) for one in words[0].split("-"))
            inside = start <= address < end
        elif inside and words[0] == "VmFlags:":
            return set(words[1:])
    raise AssertionError(f"nothing is mapped at {address:#x}")


def test_what_was_advised_for_the_memory_stays_so_after_a_swap() -> None:
    """Out of core files, out of children: as QEMU has it for its guest's memory."""
    with Arena(4 << 20) as arena:
        address = arena.live.ctypes.data
        libc = ctypes.CDLL(None, use_errno=True)
        for advice in (mmap.MADV_DONTDUMP, mmap.MADV_DONTFORK):
            assert libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(arena.size), advice) == 0
        for _ in range(2):
            live = LiveDump(arena)
            live.init(None, DumpSettings(arming="swap"))
            live.start()
            assert {"dd", "dc"} <= vm_flags(address)
            live.release()
            assert {"dd", "dc"} <= vm_flags(address)


@pytest.mark.parametrize("backend", BACKENDS)
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
        a[MIB] = 2  # nothing could ever free a slot: this granule is lost, and nobody hangs
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
    """Fault-around: n faults open n * n granules of a block of 1 MiB."""
    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        live.init(None, DumpSettings(granule=16 << 10, pool=4 * MIB))
        live.start()
        arena.live[:MIB:PAGE_SIZE] = 2
        assert live.counters().faults == 8
        assert live.read(0, 4 * MIB).count(1) == 4 * MIB and live.counters().lost == 0


@pytest.mark.parametrize("policy", ["block", "fail"])
@pytest.mark.parametrize("step", [2, 8])
@pytest.mark.parametrize("backend", BACKENDS)
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


@pytest.mark.parametrize("backend", BACKENDS)
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
@pytest.mark.parametrize("backend", BACKENDS)
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


def test_an_older_sidecar_is_durably_gone_before_its_memory_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tests/model/durable.pml has it (BUG_WIPE_UNSYNCED): else a power loss could leave the old
    seal over a target that INIT has begun to overwrite."""
    steps: list[str] = []

    def note(name: str) -> None:
        real = getattr(Target, name)

        def noted(self: Target, *arguments: object) -> object:
            if not self.path.endswith(".ldfs") or name == "sync":
                steps.append(f"{name} {Path(self.path).name}")
            return real(self, *arguments)

        monkeypatch.setattr(Target, name, noted)

    for name in ("pwrite", "zero", "sync"):
        note(name)
    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        live.init(tmp_path / "dump", DumpSettings(format="raw"))
    assert "zero dump.incomplete" in steps
    assert steps.index("sync dump.incomplete.ldfs") < steps.index("zero dump.incomplete")


def test_a_memory_only_init_that_a_signal_interrupts_leaves_no_dump_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Handlers run as soon as the core's call has returned, in which the time is spent."""

    class Interrupting:
        def __getattr__(self, name: str) -> Any:
            return getattr(lib, name)

        def ldfs_dump_init(self, *words: Any) -> int:
            assert lib.ldfs_dump_init(*words) == 0
            raise Interrupted

    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        monkeypatch.setattr(core_module, "lib", Interrupting())
        with pytest.raises(Interrupted):
            live.init(None)
        monkeypatch.undo()
        live.init(None)
        live.release()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("size", [4 * MIB, 8 * MIB])
@pytest.mark.parametrize("format", ["elf", "kdump", "raw"])
def test_an_init_killed_anywhere_leaves_the_older_raw_dump_whole_or_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, size: int, in_place: bool
) -> None:
    """Whole, unless it must be written in place and that was forced.

    Looked at after each call that changes a size: that is what a kill leaves, and what there is
    while a slow file system is at it (BUG_EMPTIED_FIRST in tests/model/durable.pml)."""
    path, found = tmp_path / "dump", []
    old = b"\x07" * MIB
    real = os.ftruncate

    def looked_at(fd: int, length: int) -> None:
        real(fd, length)
        try:
            with open_dump(path) as dump:
                found.append(dump.verdict)
                assert dump.verdict != "consistent" or dump.read_arena(0, MIB) == old
        except InvalidDump:
            found.append("invalid")

    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 7
        assert live.save(path, DumpSettings(format="raw")) == "consistent"
    with Arena(size) as arena, LiveDump(arena) as live:
        monkeypatch.setattr(os, "ftruncate", looked_at)
        if in_place:
            monkeypatch.setattr(Folder, "keeps", lambda self, name: True)
        live.init(path, DumpSettings(format=format, force=in_place))
        monkeypatch.undo()
        assert found and ("invalid" in found if in_place else set(found) == {"consistent"}), found


@pytest.mark.parametrize("sort", ["dump", "sidecar"])
def test_what_has_no_room_loses_nothing_of_the_older_dump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    path = tmp_path / "dump"
    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 7
        assert live.save(path, DumpSettings(format="raw")) == "consistent"
        refusing = tmp_path / f"dump.incomplete{'' if sort == 'dump' else '.ldfs'}"
        real = Target.expect_room

        def expect_room(self: Target, total_size: int) -> None:
            if Path(self.path) == refusing:
                raise TargetError("it is too large", errno=errno.EFBIG)
            real(self, total_size)

        monkeypatch.setattr(Target, "expect_room", expect_room)
        with pytest.raises(TargetError, match="too large"):
            live.init(path, DumpSettings(format="raw"))
        with open_dump(path) as dump:
            assert dump.verdict == "consistent" and dump.read_arena(0, MIB) == b"\x07" * MIB


def test_init_looks_ahead_before_the_target_has_to_answer(tmp_path: Path) -> None:
    """As QEMU's machine does, which looks through all of the memory."""
    path, seen = tmp_path / "dump", []

    class Looking(ThreadMachine):
        def look_ahead(self) -> None:
            seen.append((threading.current_thread().name, path.exists()))

    with Arena(4 * MIB) as arena, LiveDump(Looking(arena)) as live:
        live.init(path)
        assert seen == [(threading.current_thread().name, False)]


def test_what_init_does_to_the_memory_is_not_in_the_time_of_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, deadline = preparation.make_core, 0.5

    def slow(*words: Any, **more: Any) -> Core:
        time.sleep(2 * deadline)
        return real(*words, **more)

    monkeypatch.setattr(preparation, "make_core", slow)
    monkeypatch.setattr(preparation, "init_seconds", lambda size: size / MIB * 15)
    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        live.init(tmp_path / "dump", DumpSettings(init_deadline=deadline))


class Interrupted(BaseException):
    """As KeyboardInterrupt."""


@pytest.mark.parametrize(
    "place",
    ["run.start_thread", "live.LiveDump._begin", "age.AgeWatch.start", "preparation.make_core"],
)
def test_an_interrupted_init_leaves_no_dump_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A signal's handler may raise wherever the caller's thread is."""

    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted

    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        monkeypatch.setattr(f"livedumpfs.dump.{place}", interrupted)
        with pytest.raises(Interrupted):
            live.init(tmp_path / "dump", DumpSettings(max_age=1000))
        monkeypatch.undo()
        assert live.state is DumpState.UNINIT
        arena.live[:] = 5
        assert live.save(tmp_path / "dump", DumpSettings(force=True)) == "consistent"


@pytest.mark.parametrize("format", ["elf", "kdump", "raw"])
def test_an_older_sidecar_never_describes_what_comes_after_it(tmp_path: Path, format: str) -> None:
    """It stays as long as the older dump does."""
    target, usual = tmp_path / "dump", tmp_path / "dump.ldfs"
    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        assert live.save(target, DumpSettings(format="raw")) == "consistent"
        assert usual.exists()
        other = str(tmp_path / "other") if format == "raw" else None
        how = DumpSettings(format=format, sidecar=other)
        live.init(target, how)
        live.start()
        live.release()
        with open_dump(target) as dump:
            assert (dump.format, dump.verdict) == ("raw", "consistent")
        arena.live[0] = 2
        # What an unusual sidecar describes is not known to be a dump.
        assert live.save(target, replace(how, force=True)) == "consistent"
        assert not usual.exists()
        with open_dump(target, other) as dump:
            assert dump.verdict == "consistent" and dump.read_arena(0, 2) == b"\x02\x01"
