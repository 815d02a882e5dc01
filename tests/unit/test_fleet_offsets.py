# SPDX-License-Identifier: GPL-2.0-or-later
"""Clocks of a fleet: what round trips say of them."""

from __future__ import annotations

import pytest

from livedumpfs.fleet.offsets import (
    REFERENCE,
    Offset,
    RoundTrip,
    best,
    compared_again,
    corrected,
    kernel_facts,
    now_ns,
    this_computer,
)


def trip(offset: int, there: int, inside: int, back: int, at: int = 10**18) -> RoundTrip:
    received = at + there + offset
    return RoundTrip(at, received, received + inside, at + there + inside + back)


@pytest.mark.parametrize("offset", [0, 5_000_000, -5_000_000_000])
@pytest.mark.parametrize(("there", "back"), [(100, 100), (0, 900), (900, 0), (1, 0)])
def test_the_error_holds_whichever_way_is_longer(offset: int, there: int, back: int) -> None:
    found = best([trip(offset, there, 50_000, back)])
    assert abs(found.ns - offset) <= found.error_ns
    assert found.error_ns == (there + back + 1) // 2


def test_the_shortest_trip_counts() -> None:
    trips = [trip(1000, 9_000_000, 10, 100), trip(1000, 200, 10, 200), trip(1000, 100, 5, 8_000)]
    found = best(trips)
    assert (found.ns, found.error_ns, found.rounds) == (1000, 200, 3)


def test_clocks_that_are_compared_again() -> None:
    """One that was set has not moved; one that goes at another rate has; one that is silent is as
    it was."""
    first = {
        "ref": Offset(0, 0, 0, 5000),
        "set": Offset(10, 3, 8, 7000),
        "fast": Offset(9, 3, 8, 7),
    }
    second = {
        "ref": Offset(0, 0, 0, 5000),
        "set": Offset(-3990, 4, 8, 3000),
        "fast": Offset(59, 1, 8, 7),
    }
    found = compared_again(first | {"gone": Offset(1, 2, 8, 9)}, second, "ref")
    assert found["set"] == Offset(10, 4, 8, 7000)
    assert found["fast"] == Offset(9, 53, 8, 7)
    assert found["gone"] == Offset(1, 2, 8, 9)
    # The reference itself was set by 100: all others beside it, too.
    moved = {"ref": Offset(0, 0, 0, 5100), "fast": Offset(-91, 3, 8, 7)}
    assert compared_again(first, moved, "ref")["fast"] == Offset(9, 3, 8, 7)


def test_a_clock_that_is_set_back_meanwhile_gives_no_negative_delay() -> None:
    assert RoundTrip(1000, 5000, 5001, 900).delay == 0


def test_an_offset_within_its_error_is_none() -> None:
    assert corrected(1000, Offset(50, 60, 8)) == 1000
    assert corrected(1000, Offset(-70, 60, 8)) == 930
    assert corrected(1000, REFERENCE) == 1000


def test_what_the_kernel_says() -> None:
    facts = kernel_facts()
    assert 0 <= facts.estimated_error_ns <= facts.most_error_ns <= 60 * 10**9
    assert now_ns() > 1_700_000_000 * 10**9
    assert this_computer() == this_computer() != ""
