# SPDX-License-Identifier: GPL-2.0-or-later
"""What snapshot/ shows, to readers at the moment of a RELEASE: the dump's files, or none."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from livedumpfs import Arena, LiveDump
from livedumpfs.control.caller import Caller
from livedumpfs.control.calls import Control
from livedumpfs.control.snapshot_tree import Shown, SnapshotTree
from livedumpfs.dump import DumpState
from livedumpfs.machines import ThreadMachine
from livedumpfs.mount.hosttree import HostTree

MIB = 1 << 20
DEADLINE_S = 300.0
AWHILE_S = 0.02
"""For a thread that may have to wait for a lock that is ours until the end of the call."""


def at_each_line(act: Callable[[], object]) -> Callable[..., Any]:
    """Trace function that acts before each line of SnapshotTree.shown."""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code is not SnapshotTree.shown.__code__:
            return None
        if event == "line":
            act()
        return trace

    return trace


def test_a_release_between_any_two_lines_of_a_look() -> None:
    """Another reader sees that the dump has gone, while this one is anywhere in its look."""
    with Arena(MIB) as arena, LiveDump(arena) as live:
        tree, others = SnapshotTree(live), list[threading.Thread]()

        def release() -> None:
            live.release()
            others.append(threading.Thread(target=tree.shown))
            others[-1].start()
            others[-1].join(AWHILE_S)

        for line in range(100):
            live.init(None)
            live.start()
            tree.shown()
            before, left = live.snapshot, [line]

            def act(left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] == -1:
                    release()

            sys.settrace(at_each_line(act))
            try:
                found = tree.shown()
            finally:
                sys.settrace(None)
            assert found is None or found.number == before.generation
            for one in others:
                one.join(DEADLINE_S)
            if live.state is not DumpState.UNINIT:
                break
            assert tree.shown() is None
        assert line > 3, "some lines were tried"


def test_who_waited_for_its_turn_brings_back_no_older_dump() -> None:
    """A look that began before RELEASE, and went on after the next START."""
    with Arena(MIB) as arena, LiveDump(arena) as live:
        tree = SnapshotTree(live)
        live.init(None)
        live.start()
        found: list[Shown | None] = []
        reader = threading.Thread(target=lambda: found.append(tree.shown()))
        with tree._lock:
            reader.start()
            reader.join(AWHILE_S)  # it is where it waits for the lock
            live.release()
            live.init(None)
            live.start()
        reader.join(DEADLINE_S)
        assert [one.number for one in found if one] == [live.snapshot.generation] == [2]


def test_readers_at_release_get_the_bytes_or_a_documented_error() -> None:
    with Arena(MIB) as arena, LiveDump(ThreadMachine(arena)) as live:
        arena.live[:] = 7
        control = Control(live.machine, live)
        tree, caller = HostTree(control, 0), Caller(0, 0, 0)
        problems: list[object] = []
        ended, reads = threading.Event(), [0]

        def read() -> None:
            while not ended.is_set():
                try:
                    folder = tree.now().links.get("snapshot", "")
                    opened = tree.open(f"{folder}/mem.raw", caller)
                    data = opened.image.pread(0, 4096) if opened.image else b""
                    reads[0] += 1
                    if data != b"\x07" * 4096:
                        problems.append(data)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENODATA):
                        problems.append(error)
                except BaseException as error:  # EIO for a reader through the mount
                    problems.append(error)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        readers = [threading.Thread(target=read) for _ in range(3)]
        try:
            for one in readers:
                one.start()
            for _ in range(15):
                live.init(None)
                live.start()
                before, end = reads[0], time.monotonic() + DEADLINE_S
                while reads[0] == before and time.monotonic() < end:
                    time.sleep(1e-4)
                live.release()
        finally:
            ended.set()
            for one in readers:
                one.join(DEADLINE_S)
            sys.setswitchinterval(interval)
        assert not problems and reads[0] >= 15


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Any:
    before = set(threading.enumerate())
    yield
    assert not set(threading.enumerate()) - before
