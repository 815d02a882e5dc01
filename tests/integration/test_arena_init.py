# SPDX-License-Identifier: GPL-2.0-or-later
"""INIT of an arena's dump: what it does to an older dump, and what is left when it is cut off."""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.core.capi import lib
from livedumpfs.dump import DumpSettings, DumpState, preparation
from livedumpfs.dump import core_dump as core_module
from livedumpfs.dump.core_dump import Core
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.machines import ThreadMachine
from livedumpfs.rights.folder import Folder
from livedumpfs.targets import Target

MIB = 1 << 20


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
