# SPDX-License-Identifier: GPL-2.0-or-later
# ruff: noqa: E501 - lines of C are quoted as they are
"""The core's own C code under a scheduler (interleave/): all orders in which those who can go on
follow those who wait, and random ones, in which anybody may be stopped anywhere. Each known bug of
the protocol, put back into a copy of the sources, must be found; and the very run that shows it
must be harmless without it.

LIVEDUMP_INTERLEAVE=1 is the long mode: up to one preemption at every step, and many random runs."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.compilers import compiling

TOP = Path(__file__).resolve().parents[2]
NATIVE = TOP / "native"
HERE = Path(__file__).resolve().parent / "interleave"
LONG = bool(os.environ.get("LIVEDUMP_INTERLEAVE"))
LONG_S = 3600
SHORT_S = 800
BOUND = ("-b", "1", "-r", "1000000") if LONG else ("-b", "0")
"""Without a preemption there are still the orders in which those go on who waited."""
RANDOM_RUNS = 200_000 if LONG else 2_000  # for each choice of granules
RANDOM = ("-s", "11", "-r", "60000")
"""How a bug is looked for, unless it says otherwise: each is met in fewer than 5,000 of these runs."""
UNHOOKED = {"checksum", "checksum_avx2", "codec"}
"""Functions of their arguments alone: nobody comes between their steps."""
HOOKS = ("-D_GNU_SOURCE=", "-include", str(HERE / "hooks.h"), "-Wno-unused-value")

CASES = re.findall(r'^\t\{ "(\w+)"', (HERE / "interleave.c").read_text(), re.MULTILINE)
# These have more orders than all others together; without them they have their random ones, and the
# models of the same names have all.
IN_ALL_ORDERS = [case for case in CASES if LONG or case not in ("next_dump", "around")]


@dataclass(frozen=True)
class Bug:
    """What it is called, the case that shows it, the change, and what must be said of it. Names in
    capitals are those of tests/model/."""

    name: str
    case: str
    said: str
    changes: tuple[tuple[str, str, str], ...]  # file of native/, text that is there once, new text
    options: tuple[str, ...] = ()


def bug(name: str, case: str, said: str, *changes: tuple[str, str, str], options: str = "") -> Bug:
    return Bug(name, case, said, changes, tuple(options.split()))


NEVER_ENDS = r"nobody can go on|no end after"
CLAIM = "if (s == LDFS_G_ARMED ? ldfs_step_claim(d, g) : ldfs_step_steal(d, g)) {\n"
NOTIFY_PUBLISHED = """\t/* Somebody who found no slot may wait for one for this very granule. */
\tldfs_event_notify(&d->ring.freed);
"""
SAID = "\t\t\tldfs_fail(d, LDFS_OP_HANDLER, ENOTCONN,\n"
SAID_ENDS = "\t\t\t\t  ldfs_granule_start(d, g) / LDFS_PAGE_SIZE);\n"
BUGS = (
    bug(
        "one stolen granule ends the sweep",
        "guarded",
        "lost without a cause",
        ("saving/sweep.c", "\tif (rc && rc != -ECANCELED && end - first > 1) {", "\tif (rc == -EIO && end - first > 1) {"),
    ),
    bug(
        "AROUND_COPYING",
        "around",
        "made writable in state 1",
        ("fault/save.c", "\tif (s == LDFS_G_CLAIMED || s == LDFS_G_SWEEPING", "\tif (s == LDFS_G_SWEEPING"),
    ),
    bug(
        "AROUND_SWEEPING",
        "around",
        "made writable in state [34]",
        ("fault/save.c", "LDFS_G_CLAIMED || s == LDFS_G_SWEEPING || s", "LDFS_G_CLAIMED || s"),
    ),
    bug(
        "WRITABLE_FIRST",
        "two_by_two",
        "made writable in state [14]",
        ("fault/save.c", CLAIM, CLAIM + "\t\t\tldfs_protect_open(d, g, g);\n"),
    ),
    bug(
        "DRAIN_BY_QUEUE",
        "two_by_two",
        # Nobody waits for the queue's last slot to be written, or nobody is told that it was.
        "made writable in state 1|in a dump that is drained|nobody can go on",
        (
            "saving/sweep.c",
            "while (load_seq(&d->remaining) > 0) {",
            "while (load_seq(&d->ring.filled) || d->writer_batch.count) {",
        ),
        (
            "saving/sweep.c",
            "if (load_seq(&d->remaining) == 0)",
            "if (!load_seq(&d->ring.filled) && !d->writer_batch.count)",
        ),
    ),
    bug(
        "STEAL_UNORDERED",
        "two_by_two",
        "saved, but the target has other bytes",
        (
            "saving/batch.c",
            "return ldfs_state(d, ldfs_batch_granule(b, d, i)) == LDFS_G_IN_SLOT;",
            "return ldfs_state(d, ldfs_batch_granule(b, d, i)) <= LDFS_G_STOLEN;",
        ),
        (
            "saving/writer.c",
            "\tif (error) {\n\t\tif (error",
            "\twhile (ldfs_state(d, g) == LDFS_G_STOLEN)\n\t\tusleep(1);\n\tif (error) {\n\t\tif (error",
        ),
    ),
    bug(
        "STOLEN_COUNTS",
        "two_by_two",
        "no step leads from 5 to 6",
        (
            "state/granule.c",
            "if (step(d, g, LDFS_G_STOLEN, LDFS_G_IN_SLOT))\n\t\t\treturn LDFS_G_IN_SLOT;",
            "if (step(d, g, LDFS_G_STOLEN, LDFS_G_SAVED))\n\t\t\treturn LDFS_G_SAVED;",
        ),
    ),
    bug(
        "SUM_AFTER_STEP",
        "two_by_two",
        "the checksum is of other bytes",
        ("state/granule.c", "\t\td->checksum[g] = checksum;\n\t\tif (step", "\t\tif (step"),
        ("state/granule.c", "\t\t\tbecame_final(d, g);\n\t\t\treturn result;",
         "\t\t\td->checksum[g] = checksum;\n\t\t\tbecame_final(d, g);\n\t\t\treturn result;"),
    ),
    bug(
        "NO_WAKE_ASIDE",
        "two_by_two",
        NEVER_ENDS,
        (
            "saving/sweep.c",
            "ldfs_event_notify(&d->ring.arrived); /* the writer may have stolen granules put aside */",
            ";",
        ),
    ),
    bug(
        "NO_WAKE_DRAIN",
        "two_by_two",
        NEVER_ENDS,
        ("state/granule.c", "if (sub_seq(&d->remaining, 1) == 1)\n\t\tldfs_event_notify(&d->progress);",
         "sub_seq(&d->remaining, 1);"),
    ),
    bug(
        "READER_CHECKS_BEFORE",
        "reader",
        "a reader got other bytes",
        ("life/reader.c", "rc ? rc : in_memory(state_again(d, g)) ? 0 : -EAGAIN", "rc"),
    ),
    bug(
        "reader does not look at the slot again",
        "reader",
        "a reader got other bytes",
        ("life/reader.c", "in_slot(state_again(d, g)) ?", "in_slot(state_again(d, g)) || true ?"),
        options="-b 1",
    ),
    bug(
        "NO_PHASE_AFTER_COPY",
        "release_reader",
        "a reader got other bytes",
        ("life/reader.c", "\treturn readable(d) ? 0 : -ENODATA;\n}", "\treturn 0;\n}"),
    ),
    bug(
        "SLOT_EARLY",
        "reader",
        "a reader got other bytes",
        ("saving/writer.c", "\tif (error) {\n\t\tif (error",
         "\tuint64_t sum = ldfs_checksum(ldfs_slot_bytes(&d->ring, slot), length);\n\n"
         "\tldfs_ring_freed(&d->ring, slot);\n\tif (error) {\n\t\tif (error"),
        ("saving/writer.c", "ldfs_step_saved(d, g, ldfs_checksum(ldfs_slot_bytes(&d->ring, slot), length));",
         "ldfs_step_saved(d, g, sum);"),
        ("saving/writer.c", "\t}\n\tldfs_ring_freed(&d->ring, slot);\n}", "\t}\n}"),
    ),
    bug(
        "NO_LOOK_AGAIN",
        "each",
        "lost without a cause",
        ("fault/save.c", "\t\t\tif (load_seq(&d->ring.made) >= d->granules) {\n", "\t\t\tif (!d) {\n"),
    ),
    bug(
        "CLAIM_FIRST",
        "hang",
        NEVER_ENDS,
        (
            "fault/save.c",
            "\t\tswitch (take_slot(d, g, &slot, &deadline_ns)) {\n",
            "\t\tif (!(s == LDFS_G_ARMED ? ldfs_step_claim(d, g) : ldfs_step_steal(d, g)))\n"
            "\t\t\tcontinue;\n"
            "\t\twhile ((slot = ldfs_ring_take(&d->ring)) == NO_SLOT)\n"
            "\t\t\tsched_yield();\n"
            "\t\tsave_in_slot(d, g, slot, s == LDFS_G_SWEEPING);\n"
            "\t\treturn;\n"
            "\t\tswitch (take_slot(d, g, &slot, &deadline_ns)) {\n",
        ),
    ),
    bug(
        "NO_WAKE_BACK",
        "slots",
        NEVER_ENDS,
        ("state/state.h", "void ldfs_ring_put(", "void ldfs_ring_give_back(struct ldfs_ring *r, uint32_t slot);\nvoid ldfs_ring_put("),
        ("state/ring.c", "void ldfs_ring_put(",
         "void ldfs_ring_give_back(struct ldfs_ring *r, uint32_t slot)\n{\n"
         "\tsub_seq(&r->in_use, 1);\n\tpush_free(r, slot);\n}\n\nvoid ldfs_ring_put("),
        ("fault/save.c", "\t\t\treturn;\n\t\t}\n\t\tldfs_ring_give(&d->ring, slot);\n",
         "\t\t\treturn;\n\t\t}\n\t\tldfs_ring_give_back(&d->ring, slot);\n"),
    ),
    bug(
        "NO_WAKE_PUBLISH",
        "same_granule",
        NEVER_ENDS,
        ("fault/save.c", NOTIFY_PUBLISHED, ""),
    ),
    bug(
        "WIDEN_TO_END",
        "widen",
        "widening once was not enough",
        ("fault/save.c", "\telse if (on_right)\n", "\telse\n"),
    ),
    bug(
        "MARK_RELEASED",
        "release",
        "marked",
        ("saving/table.c", "\tif (ldfs_released(d))\n\t\treturn 0;\n", ""),
    ),
    bug(
        "SEAL_RELEASED",
        "release_reader",
        "sealed after RELEASE|in a dump that is drained|no step",
        ("saving/sweep.c", "cas_seq(&d->phase, &phase, LDFS_PHASE_DRAINED); /* not over RELEASED */",
         "while (!cas_seq(&d->phase, &phase, LDFS_PHASE_DRAINED))\n\t\t;"),
    ),
    bug(
        "UNLINK_LATE",
        "release",
        "memory of a freed dump is touched",
        ("life/start.c", "d->backend);\n\tstore_seq(&d->arena->dump, NULL);\n", "d->backend);\n"),
        ("life/release.c", "\t\tusleep(50);\n\tldfs_life_free(d);", "\t\tusleep(50);\n\tstore_seq(&a->dump, NULL);\n\tldfs_life_free(d);"),
    ),
    bug(
        "READY_SAVES",
        "start",
        "published|at the drain|no step|the target has other|made writable|before its bytes",
        ("fault/save.c", "\tif (load_seq(&d->phase) == LDFS_PHASE_READY)\n\t\treturn;\n", ""),
        ("fault/discard.c", "if (load_seq(&d->phase) != LDFS_PHASE_READY)\n\t\t\tbreak;", "break;"),
    ),
    bug(
        "SEAL_BEFORE_SYNC",
        "two_by_two",
        "sealed, but data written since",
        ("saving/sweep.c", "\tsync_target(d);\n\tstore_seq", "\tstore_seq"),
        ("saving/sweep.c", "/* not over RELEASED */\n", "/* not over RELEASED */\n\tsync_target(d);\n"),
    ),
    bug(
        "RELEASE takes the dump from a START",
        "overtaken",
        "armed, and without a dump",
        ("life/release.c", "\t\tif (before == LDFS_PHASE_READY)\n\t\t\twait_for_start(d);\n\t\telse if", "\t\tif"),
        ("life/release.c", "static void wait_for_start", "static void __attribute__((unused)) wait_for_start"),
    ),
    bug(
        "START does not wait for a discard",
        "discard",
        "no step|other bytes|called a hole|published|punched",
        ("life/start.c", "\tstore_seq(&d->arena->dump, d);\n\twhile (ldfs_fault_inside(d->arena))\n"
         "\t\tldfs_event_soon(&turns);\n", "\tstore_seq(&d->arena->dump, d);\n\t(void)turns;\n"),
    ),
    bug(
        "free stack without a tag",
        "ring",
        "taken twice|no end after",
        ("state/ring.c", "\t\thead = ((seen >> 32) + 1) << 32 | (slot + 1);", "\t\thead = slot + 1;"),
        ("state/ring.c", "\t\thead = ((seen >> 32) + 1) << 32 | load", "\t\thead = load"),
    ),
    bug(
        "GUARD_OPENS_FIRST",
        "stolen",
        "made writable in state",
        ("fault/guard.c", "\tfor (uint32_t g = 0; g < d->granules", "\tldfs_arena_unprotect_all(d->arena, d->backend);\n"
         "\tfor (uint32_t g = 0; g < d->granules"),
    ),
    bug(
        "GUARD_LEAVES_COPIES",
        "stolen",
        "made writable in state",
        ("fault/guard.c", "\t\tif (s == LDFS_G_CLAIMED || s == LDFS_G_STEALING) {", "\t\tif (s == LDFS_G_STEALING) {"),
    ),
    bug(
        "GUARD_SAYS_LATE",
        "stolen",
        "does not say why",
        ("fault/guard.c", SAID, "\t\t\tldfs_step_copy_lost(d, g);\n" + SAID),
        ("fault/guard.c", SAID_ENDS + "\t\t\tldfs_step_copy_lost(d, g);\n", SAID_ENDS),
    ),
    bug(
        "GUARD_NO_WAKE",
        "stolen_slots",
        NEVER_ENDS,
        ("fault/guard.c", "\tldfs_event_notify(&d->ring.freed); /* a granule that is lost needs no slot */\n", ""),
    ),
    bug(
        "NO_WAKE_KEEPER",
        "spill",
        NEVER_ENDS,
        ("state/ring.c", "\t\tldfs_event_notify(&r->low);\n\treturn slot;", "\t\treturn slot;\n\treturn slot;"),
    ),
    bug(
        "END_NOT_LOOKED_AT",
        "spill",
        "lost without a cause",
        ("fault/save.c", "\t\t*slot = ldfs_ring_take(&d->ring);\n"
         "\t\treturn *slot != NO_SLOT ? SLOT_TAKEN : SLOT_NONE;", "\t\treturn SLOT_NONE;"),
    ),
)  # fmt: skip


SLOW_TO_FIND = {"reader does not look at the slot again"}
"""Not met in random orders, and late in the others: looked for in the long mode alone."""


class Interleave:
    """The program, built of the core's sources as they are, or of a copy with a bug in it."""

    def __init__(self, build: Any) -> None:
        self.build = build
        own = build.objects_of([HERE / f"{name}.c" for name in ("schedule", "world", "interleave")])
        self.objects = {path.stem: path for path in own}
        for source in build.sources():
            # headroom.c: world.c has one of its own, which reads no files.
            if source.name != "headroom.c":
                self.objects[source.stem] = self._hooked(build, source)
        self.program = build.link("interleave-program", self.objects.values())

    @staticmethod
    def _hooked(build: Any, source: Path) -> Path:
        made: Path = build.object_of(source, *(() if source.stem in UNHOOKED else HOOKS))
        return made

    def with_bug(self, bug: Bug, build: Any) -> Path:
        sources = build.place / "native"
        shutil.copytree(NATIVE, sources)
        for name, old, new in bug.changes:
            text = (sources / name).read_text()
            assert text.count(old) == 1, f"{bug.name}: {name} has not once: {old}"
            (sources / name).write_text(text.replace(old, new))
        changed = {Path(name) for name, _, _ in bug.changes if name.endswith(".c")}
        objects = dict(self.objects)
        for name in changed:
            objects[name.stem] = self._hooked(build, sources / name)
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


@pytest.mark.parametrize(
    "bug",
    [one for one in BUGS if LONG or one.name not in SLOW_TO_FIND],
    ids=lambda bug: bug.name.replace(" ", "-"),
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
    "WAKE_ONE",  # not met in 20 s of random runs: each save is followed by a give, which wakes, too
    "POLL",  # an endless run of the model's waiting; here who waits sleeps
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
