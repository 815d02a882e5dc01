# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump says of increments: a sentence for each reason that the core has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from livedumpfs import Arena, DumpSettings
from livedumpfs.core.capi import ffi, lib
from livedumpfs.dump.counters import Counters
from livedumpfs.dump.fitting import fitted_to_machine
from livedumpfs.dump.tracking import Increment, bases_of, increment
from livedumpfs.machines import StopTimes, ThreadMachine

BASE = bytes(range(16))


def values(enum: str, *without: int) -> Sequence[int]:
    found: Any = ffi.typeof(f"enum {enum}").elements
    return [value for value in found if value not in without]


@pytest.mark.parametrize("value", values("ldfs_tracking", lib.LDFS_TRACK_OFF, lib.LDFS_TRACK_ON))
def test_why_changes_are_not_tracked(value: int) -> None:
    found = increment(Counters(tracking=value, since=lib.LDFS_SINCE_NOT_TRACKED), "uffd", BASE)
    assert not found.tracks and found.since == b""
    assert found.reason and found.reason.startswith("changes ") and "{" not in found.reason


SILENT = (lib.LDFS_SINCE_NONE, lib.LDFS_SINCE_COUNTS, lib.LDFS_SINCE_NOT_TRACKED)


@pytest.mark.parametrize("value", values("ldfs_since", *SILENT))
def test_why_all_was_read(value: int) -> None:
    found = increment(Counters(tracking=lib.LDFS_TRACK_ON, since=value), "sigsegv", BASE)
    assert (found.tracks, found.since) == (True, b"") and found.reason


def test_what_was_left_out() -> None:
    counted = Counters(tracking=lib.LDFS_TRACK_ON, since=lib.LDFS_SINCE_COUNTS, omitted=3)
    assert increment(counted, "sigsegv", BASE) == Increment(True, BASE, 3, None)
    assert increment(Counters(), "sigsegv", b"") == Increment(False, b"", 0, None)


def test_memory_of_another_process_has_no_bases() -> None:
    assert bases_of(object()) == ()


class Brings(ThreadMachine):
    """As an attached QEMU."""

    stop_times = StopTimes(0, 0, 0)

    def bring(self) -> None: ...

    def give_up(self) -> None: ...


def test_tracking_is_of_machines_whose_memory_is_here() -> None:
    """What brings all of it anew with each START has nothing to track."""
    with Arena("1MiB") as arena:
        for kind, tracks in ((ThreadMachine, True), (Brings, False)):
            assert fitted_to_machine(kind(arena), DumpSettings(track=True)).track is tracks
