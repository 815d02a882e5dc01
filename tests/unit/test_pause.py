# SPDX-License-Identifier: GPL-2.0-or-later
"""The pause in parts that add up, wherever it is printed."""

from __future__ import annotations

import pytest

from livedumpfs import pause
from livedumpfs.cli import text

SLOW = {
    "pause_ns": 308_000_000,
    "quiesce_ns": 134_000_000,
    "arm_ns": 345_000,
    "resume_ns": 172_000_000,
}


def test_parts_add_up() -> None:
    parts = pause.parts(SLOW)
    assert parts["other_ns"] == 1_655_000
    names = ("quiesce_ns", "arm_ns", "resume_ns", "other_ns")
    assert sum(parts[name] for name in names) == parts["pause_ns"] == 308_000_000
    assert parts["stood_still_ns"] == 174_000_000


def test_a_machine_stood_from_the_request_on() -> None:
    said = "308 ms (quiesce 134 ms, arm 345 us, resume 172 ms, other 1.66 ms)"
    assert pause.text(SLOW) == pause.text(SLOW, "ledger") == said
    assert dict(text.counter_rows(SLOW))["pause"] == said


def test_a_machine_that_has_counted_its_stop_itself() -> None:
    """A QEMU that was attached: what was done here is no part of it."""
    assert pause.text({"pause_ns": 21_400_000}) == "21.4 ms (as the machine itself has counted it)"
    assert pause.parts({"pause_ns": 21_400_000})["other_ns"] == 21_400_000


def test_writers_that_are_waited_for_do_not_stand_still() -> None:
    slow = {"pause_ns": 3_000_050_000, "quiesce_ns": 3_000_000_000, "arm_ns": 30_000,
            "resume_ns": 15_000}  # fmt: skip
    said = "50 us (arm 30 us, resume 15 us, other 5 us), after 3 s of waiting for the writers"
    assert pause.text(slow, "threads") == said
    assert dict(text.counter_rows(slow, "threads"))["pause"] == said


@pytest.mark.parametrize("value", [None, "soon", -1, 1 << 70, 0, 1.5])
def test_numbers_of_a_damaged_dump(value: object) -> None:
    assert pause.parts({"pause_ns": value}) == {} and pause.text({"pause_ns": value}) == ""
    odd = pause.parts({"pause_ns": 10, "quiesce_ns": value, "arm_ns": 20})
    assert (odd["quiesce_ns"], odd["other_ns"]) == (0, 0)
