# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that gets no more threads: each step says so or does without, and nothing is left."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aftermath import wait_for

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.cli.outlet import StandardOutput
from livedumpfs.dump import DumpSettings, DumpState
from livedumpfs.dump.core_dump import CoreDump
from livedumpfs.dumpfile.checksums import verify_checksums
from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu.monitor import Monitor
from livedumpfs.mount import host
from tests.fixtures.open_files import open_files

MIB = 1 << 20
DEADLINE_S = 300.0


class Starts:
    """Thread.start, whose n-th call finds no room; 0: none of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused, self.calls = 0, 0
        real = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            self.calls += 1
            if self.calls == self.refused or self.refused < 0:
                raise RuntimeError("can't start new thread")
            real(thread)

        monkeypatch.setattr(threading.Thread, "start", start)

    def refuse(self, number: int) -> None:
        """-1: each."""
        self.refused, self.calls = number, 0


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    gc.collect()
    threads, files = set(threading.enumerate()), open_files()
    yield Starts(monkeypatch)
    monkeypatch.undo()
    for thread in set(threading.enumerate()) - threads:
        thread.join(DEADLINE_S)
    gc.collect()  # tracebacks hold arenas
    assert not set(threading.enumerate()) - threads
    assert not open_files() - files


def expect_refusal(error: MachineError) -> None:
    assert error.errno == errno.EAGAIN and "can't start new thread" in str(error)
    assert "ulimit -u" in error.hint


def settle(live: LiveDump) -> None:
    wait_for(live._hanging.settled, lambda: "it is not freed")


@pytest.mark.parametrize("hangs", [False, True], ids=["free", "hanging"])
def test_a_whole_cycle_without_its_nth_thread(
    starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """`hanging`: RELEASE cannot free the dump at once."""
    real, refusals, refusals_left = CoreDump.free, 0, [0]

    def free(core: CoreDump) -> bool:
        refusals_left[0] -= 1
        return refusals_left[0] < 0 and real(core)

    monkeypatch.setattr(CoreDump, "free", free)
    with Arena(MIB) as arena, LiveDump(arena, quiesce=int, resume=int) as live:
        for number in itertools.count(1):
            arena.live[:] = number
            refusals_left[0] = int(hangs)
            starts.refuse(number)
            try:
                live.init(tmp_path / "dump", DumpSettings(max_age=1000, force=True))
                live.start()
                live.sweep()
                assert live.finish(DEADLINE_S) == "consistent"
            except MachineError as error:
                expect_refusal(error)
                refusals += 1
            live.release()
            assert live.state is DumpState.UNINIT
            made, all_started = starts.calls, starts.calls < number
            starts.refuse(0)
            if not live._hanging.unwatched:  # what no thread frees the next INIT does
                settle(live)
            arena.live[:] = number + 1
            live.init(None)
            live.start()
            arena.live[:] = number
            assert live.read(0, MIB).count(number + 1) == MIB
            live.release()
            settle(live)
            if all_started:
                break
        # INIT's, the keeper's, that of the age, START's; the reaper's is done without.
        assert (refusals, made) == (4, 4 + hangs)


def test_no_thread_for_the_time_of_a_pipe(starts: Starts) -> None:
    read_end, write_end = os.pipe()
    try:
        with Arena(MIB) as arena, LiveDump(arena) as live:
            starts.refuse(2)
            with pytest.raises(MachineError) as caught:
                live.init(f"/proc/self/fd/{write_end}", DumpSettings(format="kdump"))
            expect_refusal(caught.value)
            assert live.state is DumpState.UNINIT
    finally:
        os.close(read_end)
        os.close(write_end)


def test_no_thread_for_the_monitor(starts: Starts, tmp_path: Path) -> None:
    path = str(tmp_path / "qmp")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        starts.refuse(1)
        with pytest.raises(MachineError) as caught:
            Monitor(path)
        expect_refusal(caught.value)
        peer = listener.accept()[0]
        with peer:
            assert peer.recv(1) == b"", "it has hung up"


def test_no_thread_for_standard_output(
    starts: Starts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("wb") as out:
        monkeypatch.setattr("livedumpfs.cli.outlet._OUT", out.fileno())
        starts.refuse(1)
        with pytest.raises(MachineError) as caught:
            StandardOutput()
        expect_refusal(caught.value)


def test_no_thread_to_read_a_dump_back(starts: Starts, tmp_path: Path) -> None:
    with Arena(MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        assert live.save(tmp_path / "dump") == "consistent"
    with open_dump(tmp_path / "dump") as dump:
        for number in (1, 2):
            starts.refuse(number)

            def second_wanted(*_: int) -> None:
                """A pool has use for the first thread again once that one is done."""
                wait_for(lambda: starts.calls >= 2, lambda: "the pool wants no second thread")

            with pytest.raises(MachineError) as caught:
                verify_checksums(dump, second_wanted, threads=2)
            expect_refusal(caught.value)
        starts.refuse(0)
        assert verify_checksums(dump).ok


def test_a_host_ends_without_threads(starts: Starts) -> None:
    done: list[Any] = []

    def fail() -> None:
        raise OSError(errno.EIO, "broken")

    starts.refuse(-1)
    assert host._within(1.0, "free it", lambda: done.append(1)) == "" and done == [1]
    assert "cannot free it: [Errno 5] broken" in host._within(1.0, "free it", fail)
    assert not host.is_stale("/"), "what cannot be asked is not taken away"
