# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump says of increments: a sentence for each reason that the core has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.core.capi import ffi, lib
from livedumpfs.dump.counters import Counters
from livedumpfs.dump.tracking import Increment, bases_of, increment, why_never_tracked
from livedumpfs.machines import Machine, StopTimes, ThreadMachine

BASE = bytes(range(16))


def values(enum: str, *without: int) -> Sequence[int]:
    found: Any = ffi.typeof(f"enum {enum}").elements
    return [value for value in found if value not in without]


@pytest.fixture
def machine() -> Iterator[ThreadMachine]:
    with Arena("1MiB") as arena:
        yield ThreadMachine(arena)


TRACKS = DumpSettings(track=True, backend="sigsegv")


@pytest.mark.parametrize("value", values("ldfs_tracking", lib.LDFS_TRACK_OFF, lib.LDFS_TRACK_ON))
def test_why_changes_are_not_tracked(value: int, machine: Machine) -> None:
    counted = Counters(tracking=value, since=lib.LDFS_SINCE_NOT_TRACKED)
    found = increment(counted, machine, TRACKS, BASE)
    assert not found.tracks and found.since == b""
    assert found.reason and found.reason.startswith("changes ") and "{" not in found.reason


SILENT = (lib.LDFS_SINCE_NONE, lib.LDFS_SINCE_COUNTS, lib.LDFS_SINCE_NOT_TRACKED)


@pytest.mark.parametrize("value", values("ldfs_since", *SILENT))
def test_why_all_was_read(value: int, machine: Machine) -> None:
    counted = Counters(tracking=lib.LDFS_TRACK_ON, since=value)
    found = increment(counted, machine, TRACKS, BASE)
    assert (found.tracks, found.since) == (True, b"") and found.reason


def test_what_was_left_out(machine: Machine) -> None:
    counted = Counters(tracking=lib.LDFS_TRACK_ON, since=lib.LDFS_SINCE_COUNTS, omitted=3)
    assert increment(counted, machine, TRACKS, BASE) == Increment(True, BASE, 3, None)
    nothing = increment(Counters(), machine, DumpSettings(), b"")
    assert nothing == Increment(False, b"", 0, None)


def test_memory_of_another_process_has_no_bases() -> None:
    assert bases_of(object()) == ()


class Brings(ThreadMachine):
    """As an attached QEMU."""

    name = "brought"
    stop_times = StopTimes(0, 0, 0)

    def bring(self) -> None: ...

    def give_up(self) -> None: ...


class UffdAlone(ThreadMachine):
    """As a QEMU under us."""

    name = "other"
    backends = ("uffd",)


class OfHugePages(ThreadMachine):
    """Its pages cannot be moved."""

    page_size = 2 << 20


def test_memory_of_huge_pages_is_never_tracked() -> None:
    with Arena("1MiB") as arena:
        assert "its memory is of huge pages" in why_never_tracked(OfHugePages(arena))
        assert why_never_tracked(ThreadMachine(arena)) == ""


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Brings, "brought machine cannot be tracked: all of its memory comes anew with each dump"),
        (UffdAlone, "other machine cannot be tracked: that needs backend sigsegv, and it has uffd"),
    ],
)
def test_a_machine_that_cannot_be_tracked_says_so(kind: type[ThreadMachine], why: str) -> None:
    """In each dump that was to track, and in no other: which machine, why, and what to do."""
    with Arena("1MiB") as arena, LiveDump(kind(arena)) as dump:
        for track in (True, False):
            dump.init(None, DumpSettings(track=track))
            dump.start()
            said = dump.increment.reason
            dump.release()
            assert dump.increment == Increment(reason=said)
            if track:
                assert said and why in said and said.endswith("; set track to 0")
            else:
                assert said is None


def test_why_a_setting_keeps_it_from_being_tracked(machine: Machine) -> None:
    with LiveDump(machine) as dump:
        for settings, what in (
            (DumpSettings(track=True, backend="sigbus"), "set backend to sigsegv"),
            (DumpSettings(track=True, backend="sigsegv", arming="mprotect"), "set arming to swap"),
        ):
            dump.init(None, settings)
            said = dump.increment.reason
            dump.release()
            assert said and said.endswith(what)
