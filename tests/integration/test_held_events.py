# SPDX-License-Identifier: GPL-2.0-or-later
"""Observers of a dump whose machine is held: nothing is told while it stands."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from livedumpfs.dump import DumpEvent, Happened, LiveDump
from livedumpfs.errors import MachineError
from livedumpfs.machines import UnicornMachine
from tests.fixtures.holds import arm_in_time
from tests.fixtures.unicorn_guests import needs_ledger

pytestmark = [needs_ledger, pytest.mark.usefixtures("no_vcpu_is_left")]
DEADLINE_S = 300.0
LONG_S = 50.0
SHORT_S = 0.2
INIT, START, RELEASE = Happened.INIT, Happened.START, Happened.RELEASE


class Told:
    """What was told of a dump, and whether its machine stood."""

    def __init__(self, dump: LiveDump) -> None:
        self.dump = dump
        self.events: list[tuple[Happened, bool]] = []
        self.pause_ns = 0
        dump.observers.append(self.note)

    def note(self, event: DumpEvent) -> None:
        self.events.append((event.what, self.dump.is_held))
        self.pause_ns = event.counters.pause_ns


@pytest.fixture
def told() -> Iterator[Told]:
    with UnicornMachine("16MiB", 2, rate=2000) as machine:
        machine.wait_ready(DEADLINE_S)
        with LiveDump(machine) as dump:
            yield Told(dump)


def test_go_tells_of_the_start(told: Told) -> None:
    dump = told.dump
    dump.init(None)
    dump.hold(LONG_S)
    dump.arm()
    assert told.events == [(INIT, False)]
    dump.go()
    assert told.events == [(INIT, False), (START, False)]
    assert told.pause_ns > 0
    dump.release()
    assert told.events == [(INIT, False), (START, False), (RELEASE, False)]


def test_so_does_the_deadline_and_go_not_again(told: Told) -> None:
    dump = told.dump
    dump.init(None)
    arm_in_time(dump, SHORT_S)
    end = time.monotonic() + DEADLINE_S
    while len(told.events) < 2:
        assert time.monotonic() < end, told.events
        time.sleep(0.005)
    with pytest.raises(MachineError, match="GO: the machine was let go after"):
        dump.go()
    assert told.events == [(INIT, False), (START, False)]


def test_one_that_was_never_armed(told: Told) -> None:
    dump = told.dump
    dump.init(None)
    dump.hold(LONG_S)
    dump.release()
    assert [what for what, _ in told.events] == [INIT, RELEASE]
