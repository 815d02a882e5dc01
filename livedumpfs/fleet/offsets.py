# SPDX-License-Identifier: GPL-2.0-or-later
"""How far the clocks of members are apart, as NTP measures it: of several round trips the shortest
one says it best, and half of that trip is how wrong it can be."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from livedumpfs.clocks import read_clock


class ClockFacts(msgspec.Struct, frozen=True):
    """What the kernel says of a computer's CLOCK_REALTIME, see adjtimex(2). Times in ns."""

    synchronized: bool
    """Something (chrony, ntpd, ptp4l) says that it keeps the clock right."""
    estimated_error_ns: int
    most_error_ns: int
    """The kernel's bound: it grows by 500 us a second without news, up to 16 s."""


class Offset(msgspec.Struct, frozen=True):
    """A clock beside the reference clock, in ns."""

    ns: int
    """What the clock shows more than the reference."""
    error_ns: int
    """How wrong `ns` can be, either way: half of the shortest round trip."""
    rounds: int
    """How many round trips were looked at. 0: it is the reference itself."""
    epoch_ns: int = 0
    """What CLOCK_REALTIME showed there more than CLOCK_MONOTONIC, which nothing sets: so a clock
    that is set afterwards changes nothing of what was measured. 0: not known."""


REFERENCE = Offset(0, 0, 0)


@dataclass(frozen=True)
class RoundTrip:
    """One question and its answer, in ns. The ends are by the asker's clock, the middle by the
    other's."""

    sent: int
    received: int
    answered: int
    back: int
    epoch: int = 0
    """The other's epoch_ns."""

    @property
    def delay(self) -> int:
        """How long question and answer were under way together."""
        return max(self.back - self.sent - (self.answered - self.received), 0)

    @property
    def offset(self) -> int:
        """The other clock beside the asker's, if both ways take as long."""
        return (self.received - self.sent + self.answered - self.back) // 2


def best(trips: Sequence[RoundTrip]) -> Offset:
    """From the trip with the least delay: queues only ever add to it. ValueError: no trips."""
    shortest = min(trips, key=lambda one: one.delay)
    return Offset(shortest.offset, (shortest.delay + 1) // 2, len(trips), epoch_ns=shortest.epoch)


def compared_again(
    first: Mapping[str, Offset], second: Mapping[str, Offset], reference: str
) -> dict[str, Offset]:
    """What holds from the one measuring to the other, by the clock's address: the offset of the
    first, and an error that is no less than either, and than how far the clock has moved beside the
    reference. By CLOCK_MONOTONIC on both sides, so a clock that was set has not moved."""
    epochs = [one[reference].epoch_ns if reference in one else 0 for one in (first, second)]
    found = {}
    for name, before in first.items():
        after = second.get(name, before)
        moved = (after.ns - after.epoch_ns) - (before.ns - before.epoch_ns)
        if after is before or not before.epoch_ns or not after.epoch_ns:
            moved = 0
        else:
            moved += epochs[1] - epochs[0]
        error = max(before.error_ns, after.error_ns) + abs(moved)
        found[name] = msgspec.structs.replace(before, error_ns=error)
    return found


def corrected(agreed_ns: int, offset: Offset) -> int:
    """The agreed time of the reference clock, by a clock with that offset. An offset within its own
    error is no offset: a clock that NTP keeps is better than what a few round trips can say."""
    return agreed_ns + offset.ns if abs(offset.ns) > offset.error_ns else agreed_ns


def epoch_ns() -> int:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, of this computer."""
    looks = []
    for _ in range(3):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        looks.append((after - before, wall - (before + after) // 2))
    return min(looks)[1]


def now_ns() -> int:
    """CLOCK_REALTIME. It labels and agrees on instants; no deadline goes by it."""
    return time.time_ns()


def this_computer() -> str:
    """The boot of this kernel: processes that have it share its clock."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def kernel_facts() -> ClockFacts:
    """What this kernel says of its clock. OSError: it says nothing."""
    found = read_clock()
    return ClockFacts(found.synchronised, found.estimated_error_ns, found.max_error_ns)
