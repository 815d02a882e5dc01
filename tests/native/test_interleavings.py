# SPDX-License-Identifier: GPL-2.0-or-later
"""The core's own C code under a scheduler (interleave/): all orders in which the threads that can
go on follow those that wait, and random ones, in which each may be stopped anywhere. Each known bug
of the protocol (bug_patches.py), put back into a copy of the sources, must be found; and the very
run that shows it must be harmless without it.

LIVEDUMP_INTERLEAVE=1 is the long mode: up to one preemption at every step, and many random runs."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.compilers import compiling
from tests.native.bug_patches import Bug, bugs

TOP = Path(__file__).resolve().parents[2]
NATIVE = TOP / "native"
HERE = Path(__file__).resolve().parent / "interleave"
LONG = bool(os.environ.get("LIVEDUMP_INTERLEAVE"))
LONG_S = 3600
SHORT_S = 800
BOUND = ("-b", "1", "-r", "1000000") if LONG else ("-b", "0")
"""Without a preemption there are still the orders in which threads that waited go on."""
RANDOM_RUNS = 200_000 if LONG else 2_000  # for each choice of granules
RANDOM = ("-s", "11", "-r", "6000")
"""How a bug is searched for, unless its file says otherwise: so many runs for each choice of
granules. Each bug is met within 5,000 of the right choice; the other choices take all of them."""
UNHOOKED = {"checksum", "checksum_avx2", "codec"}
"""Functions of their arguments alone: no thread comes between their steps."""
STOOD_IN_FOR = {"effort", "headroom", "pagemap", "urgent"}
"""By world_computer.c."""
HOOKS = ("-D_GNU_SOURCE=", "-include", str(HERE / "hooks.h"), "-Wno-unused-value")

CASES = re.findall(r'^\t\{ "(\w+)"', (HERE / "cases.c").read_text(), re.MULTILINE)
# These have more orders than all others together; without them they have their random ones, and the
# models of the same names have all. Of "ring", which is no model, `make interleave` tries all.
RANDOM_ALONE = (
    *("next_dump", "around", "auto", "auto_hold", "auto_lose", "helper_release"),
    *("held_release", "ring", "two_by_two", "helper", "widen_sweep"),
)
# Those of the backend sigbus have the orders of their twins of sigsegv, and random ones.
TWINS = tuple(case for case in CASES if case.startswith("sigbus_"))
IN_ALL_ORDERS = [case for case in CASES if LONG or case not in RANDOM_ALONE + TWINS]


BUGS = bugs()


SLOW_TO_FIND = {"reader_does_not_look_at_the_slot_again"}
"""Not met in random orders, and late in the others: looked for in the long mode alone."""


class Interleave:
    """The program, built of the core's sources as they are, or of a copy with a bug in it."""

    def __init__(self, build: Any) -> None:
        self.build = build
        own = build.objects_of(sorted(HERE.glob("*.c")))
        self.objects = {path.stem: path for path in own}
        for source in build.sources():
            if source.stem not in STOOD_IN_FOR:
                self.objects[source.stem] = self._hooked(build, source)
        self.program = build.link("interleave-program", self.objects.values())

    @staticmethod
    def _hooked(build: Any, source: Path) -> Path:
        made: Path = build.object_of(source, *(() if source.stem in UNHOOKED else HOOKS))
        return made

    def with_bug(self, bug: Bug, build: Any) -> Path:
        shutil.copytree(NATIVE, build.place / "native")
        bug.apply(build.place)
        objects = dict(self.objects)
        for name in bug.changed():
            if name.suffix == ".c":
                objects[name.stem] = self._hooked(build, build.place / name)
        made: Path = build.link("mutant", objects.values())
        return made


@pytest.fixture(scope="module")
def interleave(building: Callable[..., Any]) -> Interleave:
    with compiling("interleave"):
        return Interleave(building("interleave"))


def counted(printed: str) -> tuple[int, int, int]:
    match = re.search(r"(\d+) runs, (\d+) states, (\d+) steps", printed)
    assert match, printed
    return int(match[1]), int(match[2]), int(match[3])


Run = Callable[..., tuple[int, str]]


@pytest.mark.parametrize("case", IN_ALL_ORDERS)
@pytest.mark.timeout(LONG_S if LONG else SHORT_S + 60)
def test_every_order_up_to_a_bound(case: str, interleave: Interleave, run_program: Run) -> None:
    code, printed = run_program(
        interleave.program, case, *BOUND, deadline_s=LONG_S if LONG else SHORT_S
    )
    print(printed)
    assert code == 0, printed
    assert LONG or "complete" in printed, printed
    assert counted(printed)[0] > 30, "so few orders: the actors do not meet"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.timeout(LONG_S if LONG else SHORT_S + 60)
def test_random_orders(case: str, interleave: Interleave, run_program: Run) -> None:
    seed = random.randrange(1, 1 << 63)
    code, printed = run_program(
        interleave.program, case, "-s", str(seed), "-r", str(RANDOM_RUNS),
        deadline_s=LONG_S if LONG else SHORT_S,
    )  # fmt: skip
    print(f"seed {seed}: {printed}")
    assert code == 0, printed


def test_a_limit_of_runs_ends_one_search_alone(interleave: Interleave, run_program: Run) -> None:
    """The searches of the same case that follow it, for other granules, begin anew."""
    code, printed = run_program(interleave.program, "reader", "-b", "0", "-r", "20")
    assert code == 0, printed
    assert "complete" not in printed
    assert counted(printed)[0] == 4 * 20, printed  # two stores, two granules


@pytest.mark.parametrize(
    "bug", [one for one in BUGS if LONG or one.name not in SLOW_TO_FIND], ids=lambda bug: bug.name
)
def test_known_bug_is_found(
    bug: Bug, interleave: Interleave, building: Callable[..., Any], run_program: Run
) -> None:
    mutant = interleave.with_bug(bug, building("mutant"))
    code, printed = run_program(mutant, bug.case, *(bug.options or RANDOM))
    assert code == 1, f"not found: {printed}"
    assert re.search(rf"^violated: .*({bug.said})", printed, re.MULTILINE), printed
    schedule = re.search(r"^schedule (\S+)$", printed, re.MULTILINE)
    picks = re.search(r"^picks (\S+)$", printed, re.MULTILINE)
    assert schedule and picks, printed
    run = re.search(r"^run (\d+), step (\d+)", printed, re.MULTILINE)
    assert run
    print(f"{bug.name}: found in run {run[1]} at step {run[2]}")
    again = (bug.case, "-p", picks[1], "-R", schedule[1])
    assert run_program(mutant, *again)[0] == 1, "the run that showed it does not show it again"
    code, printed = run_program(interleave.program, *again)
    assert code == 0, printed


IN_THE_MODEL_ALONE = {
    "POLL",  # an endless run of the model's waiting; here an actor that waits sleeps
    "WIDEN_HOLDS_CLAIM",  # there is no place in C where a claim could outlive its copy
    "WAKE_ONE_PACKER",  # packers are not among the cases
    "NO_WAKE_AT_LIMIT",  # memory for the pool never fails here
    "READERS_UNCOUNTED",  # no reader comes after the owner has begun to free the dump
    # What is on the target after a kill or a power loss; the last three are Python's.
    *("MARK_BEFORE_DATA", "SYNC_ERROR_SEALS", "MARKS_TRUSTED", "WIPE_UNSYNCED"),
    "EMPTIED_FIRST",
    # The names of a sealed dump and its sidecar are given in Python.
    *("READER_BY_NAME", "SIDECAR_FIRST", "FOLDER_UNSYNCED"),
    # Pipes are not among the cases.
    *("CANCEL_FIRST", "NO_CANCEL", "CUT_OFF_COUNTS"),
    # userfaultfd is not: the kernel's part of it would have to be written anew.
    *("NO_REPROTECT", "GUARDED_LATE", "GUARDED_CLEARED_EARLY", "TORN_IGNORED", "TORN_STAYS"),
    *("NO_WAKE_AFTER", "MONITOR_ENDS", "MONITOR_SPINS", "MONITOR_WAITS_FOR_START"),
    *("MONITOR_UNCOUNTED", "BATCH_DROPPED", "RELEASE_NO_SLOT_WAKE", "FORGET_FIRST"),
    "RELEASE_NO_WAKE",
    *("LATE_PASSED_ON", "READER_OF_ONE_DUMP"),  # by it, and after it
    # A discard is, but one at a time, and not within INIT.
    *("PUNCH_FIRST", "DISCARD_READY", "DISCARD_STAYS", "LEAVES_BEFORE_PUNCH"),
    *("START_NO_WAIT", "INIT_NO_WAIT", "FULL_OVER_PUNCHED", "FREE_AT_ONCE"),
}


def test_all_bugs_of_the_model_that_c_has_are_tried() -> None:
    model = "".join(path.read_text() for path in (TOP / "tests" / "model").glob("*.pml"))
    written = set(re.findall(r"\bBUG_([A-Z_]+)\b", model))
    assert written - {b.name for b in BUGS} == IN_THE_MODEL_ALONE


def test_the_product_has_no_hooks(building: Callable[..., Any]) -> None:
    """The hooks come by the compiler's command line alone; no file of the core has a place for
    them."""
    for source in NATIVE.rglob("*.[ch]"):
        assert "hook_step" not in source.read_text(), source
    build = building("plain")
    plain = build.object_of(NATIVE / "state" / "granule.c")
    assert b"hook_" not in plain.read_bytes()
    hooked = build.object_of(NATIVE / "state" / "granule.c", *HOOKS)
    assert b"hook_step" in hooked.read_bytes()
