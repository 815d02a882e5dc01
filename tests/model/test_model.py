# SPDX-License-Identifier: GPL-2.0-or-later
"""The protocol of docs/concurrency.md, checked exhaustively with spin.

Each model must hold in all its states, and each known bug, put back by its macro, must be found.
LIVEDUMP_MODEL=1 is the long mode: larger sizes of some models.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LONG = bool(os.environ.get("LIVEDUMP_MODEL"))  # `make model`: the larger sizes too
DEADLINE_S = 1800 if LONG else 600
MEMORY_MB = 6144 if LONG else 2048
# tcc builds a checker in a hundredth of gcc's time; what gcc builds takes a third less time to run.
COMPILER = ("gcc", "-O1") if LONG else ("tcc",)
DEPTH = 20_000  # steps; the longest run of all models is below 1,000


@dataclass(frozen=True)
class Check:
    """One run of spin: a model, macros for it, and whether to look for endless runs instead."""

    model: str
    macros: tuple[str, ...] = ()
    cycles: bool = False

    @property
    def name(self) -> str:
        return "-".join((self.model, *self.macros, *(("cycles",) if self.cycles else ())))


MODELS = (
    "two_by_two",
    "three_by_one",
    "reader",
    "readers_two",
    "readers_next",
    "fail",
    "copy_fails",
    "hang",
    "slots",
    "same_granule",
    "each",
    "spill",
    "around",
    "widen",
    "widen_sweep",
    "release",
    "release_sweep",
    "packers",
    "packers_fail",
    "release_packers",
    "release_pipe",
    "helper",
    "release_helper",
    "next_dump",
    "discard",
    "discard_start",
    "discard_release",
    "discard_shadow",
    "uffd",
    "uffd_slots",
    "uffd_sweep",
    "sigbus",
    "durable",
    "rename",
    "hold",
)
# The same models with other sizes, or another target.
VARIANTS = (
    Check("spill", ("TARGET",)),
    Check("spill", ("TARGET", "SHRINKS=1")),
    Check("around", ("NS=1",)),
    Check("durable", ("SIDECAR",)),
    Check("fail", ("NV=1",)),
    Check("hold", ("SHIM",)),
)
MILLIONS = ("fail",)
"""Models of more states than a short hash table is good for."""
# So many states have those of a few steps.
SMALL = {"rename": 10}

# In these not one cycle exists, however unfairly the processes of the model are scheduled: every
# run comes to its end.
ENDING = ("widen_sweep", "slots", "hang", "copy_fails", "release")

ASSERTION = "assertion violated"
DEADLOCK = "invalid end state"
CYCLE = "non-progress cycle"


# The bug, and what spin must say of it.
MUTANTS: tuple[tuple[Check, str], ...] = (
    (Check("two_by_two", ("BUG_WRITABLE_FIRST",)), ASSERTION),
    (Check("two_by_two", ("BUG_DRAIN_BY_QUEUE",)), ASSERTION),
    (Check("two_by_two", ("BUG_STEAL_UNORDERED",)), ASSERTION),
    (Check("two_by_two", ("BUG_STOLEN_COUNTS",)), ASSERTION),
    (Check("two_by_two", ("BUG_SUM_AFTER_STEP",)), ASSERTION),
    (Check("two_by_two", ("BUG_NO_WAKE_ASIDE",)), DEADLOCK),
    (Check("two_by_two", ("BUG_NO_WAKE_DRAIN",)), DEADLOCK),
    (Check("reader", ("BUG_READER_CHECKS_BEFORE",)), ASSERTION),
    (Check("reader", ("BUG_SLOT_EARLY",)), ASSERTION),
    (Check("release_sweep", ("BUG_NO_PHASE_AFTER_COPY",)), ASSERTION),
    (Check("readers_next", ("BUG_READERS_UNCOUNTED",)), ASSERTION),
    (Check("spill", ("BUG_END_NOT_LOOKED_AT",)), ASSERTION),
    (Check("spill", ("BUG_NO_WAKE_AT_LIMIT",)), DEADLOCK),
    (Check("spill", ("BUG_NO_WAKE_KEEPER", "NS=3", "NV=3")), DEADLOCK),
    (Check("spill", ("BUG_SHRINK_IN_USE", "TARGET", "SHRINKS=2")), ASSERTION),
    (Check("each", ("BUG_NO_LOOK_AGAIN",)), ASSERTION),
    (Check("hang", ("BUG_CLAIM_FIRST",)), DEADLOCK),
    (Check("slots", ("BUG_NO_WAKE_BACK",)), DEADLOCK),
    (Check("same_granule", ("BUG_NO_WAKE_PUBLISH",)), DEADLOCK),
    (Check("same_granule", ("BUG_WAKE_ONE",)), DEADLOCK),
    (Check("slots", ("BUG_NO_PASS_ON",)), DEADLOCK),
    (Check("slots", ("BUG_POLL",), cycles=True), CYCLE),
    (Check("around", ("BUG_AROUND_COPYING",)), ASSERTION),
    (Check("around", ("BUG_AROUND_SWEEPING",)), ASSERTION),
    (Check("widen", ("BUG_WIDEN_HOLDS_CLAIM", "NS=2")), DEADLOCK),
    (Check("widen_sweep", ("BUG_WIDEN_TO_END",)), ASSERTION),
    (Check("packers", ("BUG_STOLEN_COUNTS",)), ASSERTION),
    (Check("packers", ("BUG_WAKE_ONE_PACKER",)), DEADLOCK),
    (Check("helper", ("BUG_STOLEN_COUNTS",)), ASSERTION),
    (Check("helper", ("BUG_HELPER_KEEPS_WAKE",)), DEADLOCK),
    (Check("helper", ("BUG_HELPER_LEAVES_SLOTS",)), DEADLOCK),
    (Check("release_pipe", ("BUG_CANCEL_FIRST",)), ASSERTION),
    (Check("release_pipe", ("BUG_NO_CANCEL",)), DEADLOCK),
    (Check("release_pipe", ("BUG_CUT_OFF_COUNTS",)), ASSERTION),
    (Check("release", ("BUG_MARK_RELEASED",)), ASSERTION),
    (Check("release_sweep", ("BUG_SEAL_RELEASED",)), ASSERTION),
    (Check("next_dump", ("BUG_UNLINK_LATE",)), ASSERTION),
    (Check("next_dump", ("BUG_READY_SAVES",)), ASSERTION),
    (Check("discard", ("BUG_PUNCH_FIRST",)), ASSERTION),
    (Check("discard", ("BUG_STOLEN_COUNTS",)), ASSERTION),
    (Check("discard_start", ("BUG_DISCARD_READY",)), ASSERTION),
    (Check("discard_start", ("BUG_DISCARD_STAYS",)), DEADLOCK),
    (Check("discard_start", ("BUG_LEAVES_BEFORE_PUNCH",)), ASSERTION),
    (Check("discard_start", ("BUG_START_NO_WAIT",)), ASSERTION),
    (Check("discard_start", ("BUG_INIT_NO_WAIT",)), ASSERTION),
    (Check("discard_start", ("BUG_FULL_OVER_PUNCHED",)), ASSERTION),
    (Check("discard_release", ("BUG_FREE_AT_ONCE",)), ASSERTION),
    (Check("discard_shadow", ("BUG_NO_REPROTECT",)), ASSERTION),
    (Check("discard_shadow", ("BUG_GUARDED_LATE",)), ASSERTION),
    (Check("discard_shadow", ("BUG_GUARDED_CLEARED_EARLY",)), ASSERTION),
    (Check("discard_shadow", ("BUG_TORN_IGNORED",)), ASSERTION),
    (Check("discard_shadow", ("BUG_TORN_STAYS",)), ASSERTION),
    (Check("uffd", ("BUG_NO_WAKE_AFTER",)), DEADLOCK),
    (Check("uffd", ("BUG_MONITOR_ENDS",)), DEADLOCK),
    (Check("uffd", ("BUG_MONITOR_SPINS",)), DEADLOCK),
    (Check("uffd", ("BUG_MONITOR_WAITS_FOR_START",)), DEADLOCK),
    (Check("uffd_slots", ("BUG_MONITOR_UNCOUNTED",)), ASSERTION),
    (Check("uffd_slots", ("BUG_BATCH_DROPPED",)), DEADLOCK),
    (Check("uffd_slots", ("BUG_RELEASE_NO_SLOT_WAKE",)), DEADLOCK),
    (Check("uffd_slots", ("BUG_FORGET_FIRST",)), ASSERTION),
    (Check("uffd_slots", ("BUG_RELEASE_NO_WAKE",)), ASSERTION),
    (Check("sigbus", ("BUG_LATE_PASSED_ON",)), ASSERTION),
    (Check("sigbus", ("BUG_OPENED_EARLY",)), ASSERTION),
    (Check("sigbus", ("BUG_READER_OF_ONE_DUMP",)), DEADLOCK),
    (Check("durable", ("BUG_MARK_BEFORE_DATA",)), ASSERTION),
    (Check("durable", ("BUG_SEAL_BEFORE_SYNC",)), ASSERTION),
    (Check("durable", ("BUG_SYNC_ERROR_SEALS",)), ASSERTION),
    (Check("durable", ("BUG_WIPE_UNSYNCED", "SIDECAR")), ASSERTION),
    (Check("durable", ("BUG_EMPTIED_FIRST", "SIDECAR")), ASSERTION),
    (Check("durable", ("BUG_MARKS_TRUSTED",)), ASSERTION),
    (Check("rename", ("BUG_READER_BY_NAME",)), ASSERTION),
    (Check("rename", ("BUG_SIDECAR_FIRST",)), ASSERTION),
    (Check("rename", ("BUG_FOLDER_UNSYNCED",)), ASSERTION),
    (Check("hold", ("BUG_CLOCK_FIRST", "SHIM")), ASSERTION),
    (Check("hold", ("BUG_NO_WAKE_HOLDER",)), DEADLOCK),
)
# The same models with more in them, by `make model` alone.
LARGER = (
    Check("readers_two", ("NS=1", "ONE_READ=1")),
    Check("readers_two", ("ONE_READ=1",)),
    Check("readers_two", ("NG=3", "NS=1", "ONE_READ=1")),
    Check("readers_two", ("NG=3", "NS=1", "ONE_READ=0")),
    Check("readers_two", ("NG=3", "NS=1", "ONE_READ=2")),
    Check("spill", ("NS=3", "NV=3")),
    Check("spill", ("TARGET", "SHRINKS=2")),
    Check("around", ("POLICY=FAIL",)),
    Check("release_pipe", ("NG=1", "NP=2")),
    Check("discard", ("READERS=1",)),
    Check("discard", ("NG=2",)),
    Check("discard_shadow", ("NG=2", "FAILURES=1")),
    Check("uffd_sweep", ("NG=2",)),
)
# Those of most states. `around` has the same actors in VARIANTS, with a slot less, and `fail` has
# them there, with a vCPU less; RELEASE beside two threads that save is in `release_packers`; one
# reader is in `reader`, two dumps' readers are in `readers_next`. interleave/ has two readers in C,
# and all orders of `fail` and `three_by_one`.
LONG_ALONE = ("readers_two", "around", "release_helper", "fail", "three_by_one")
SLOW_BUGS = ("BUG_NO_WAKE_KEEPER",)
"""interleave/ has it in C."""
USUAL = tuple(Check(model) for model in MODELS if LONG or model not in LONG_ALONE)
HOLDING = USUAL + VARIANTS + (LARGER if LONG else ())
# `slots` has most states of them by far; without LONG its known bug is still looked for.
CYCLES = tuple(Check(model, cycles=True) for model in ENDING if LONG or model != "slots")


def _run(command: list[str], where: Path) -> str:
    done = subprocess.run(
        command,
        cwd=where,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}"
    return done.stdout


def _explore(check: Check, where: Path) -> str:
    """Build and run one check in `where`; returns what pan, the built checker, printed."""
    for program in ("spin", COMPILER[0]):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian package {program})")
    for source in HERE.glob("*.pml"):
        shutil.copy(source, where)
    macros = [f"-D{macro}" for macro in check.macros]
    _run(["spin", "-a", *macros, f"{check.model}.pml"], where)
    mode = "-DNP" if check.cycles else "-DSAFETY"
    options = [mode, "-DNOFAIR", *_stored(check), f"-DMEMLIM={MEMORY_MB}"]
    _run([*COMPILER, "-w", *options, "-o", "pan", "pan.c"], where)
    # 2 to the power of so many slots of its hash table: to clear the usual one takes longer than
    # most of the short searches.
    table = [] if LONG or check.model in MILLIONS else ["-w22"]
    found = _run(["./pan", f"-m{DEPTH}", *table, *(["-l"] if check.cycles else [])], where)
    if list(where.glob("*.trail")):
        found += "\n" + _run(["spin", *macros, "-t", "-p", f"{check.model}.pml"], where)
    return found


def _stored(check: Check) -> list[str]:
    """How the checker keeps its states: the smaller, the slower."""
    if LONG:
        return ["-DCOLLAPSE"]
    return [] if check.cycles else ["-DNOCOMP"]  # which a search for cycles cannot do


def _states(found: str) -> int:
    match = re.search(r"(\d+) states, stored", found)
    assert match, found
    return int(match[1])


def _complete(found: str) -> None:
    for trouble in ("max search depth too small", "out of memory", "Search not completed"):
        assert trouble not in found, found
    assert "errors: 0" in found, found
    assert "Full statespace search" in found, found


@pytest.mark.timeout(DEADLINE_S + 60)  # the processors may be others' for most of the time
@pytest.mark.parametrize("check", HOLDING, ids=lambda check: check.name)
def test_protocol_holds(check: Check, tmp_path: Path) -> None:
    found = _explore(check, tmp_path)
    _complete(found)
    print(f"{check.name}: {_states(found)} states")
    least = SMALL.get(check.model, 10_000)
    assert _states(found) >= least, "so few states: the model does not run"


@pytest.mark.timeout(DEADLINE_S + 60)
@pytest.mark.parametrize("check", CYCLES, ids=lambda check: check.name)
def test_every_run_ends(check: Check, tmp_path: Path) -> None:
    found = _explore(check, tmp_path)
    _complete(found)
    print(f"{check.name}: {_states(found)} states")


@pytest.mark.timeout(DEADLINE_S + 60)
@pytest.mark.parametrize(
    ("check", "verdict"),
    [one for one in MUTANTS if LONG or not set(SLOW_BUGS) & set(one[0].macros)],
    ids=lambda v: getattr(v, "name", ""),
)
def test_known_bug_is_found(check: Check, verdict: str, tmp_path: Path) -> None:
    found = _explore(check, tmp_path)
    assert "errors: 1" in found, found
    assert re.search(rf"^pan:1: {verdict}", found, re.MULTILINE), found


def test_every_bug_macro_is_tried() -> None:
    text = "".join(path.read_text() for path in HERE.glob("*.pml"))
    written = set(re.findall(r"\bBUG_[A-Z_]+\b", text)) - {"BUG_"}
    tried = {macro for check, _ in MUTANTS for macro in check.macros if macro.startswith("BUG_")}
    assert written == tried


def test_models_are_all_run() -> None:
    shared = {"protocol", "ends", "punch", "kernel", "monitor", "signals"}
    assert {path.stem for path in HERE.glob("*.pml")} - shared == set(MODELS)
    assert {check.model for check in HOLDING + LARGER} | set(LONG_ALONE) == set(MODELS)


def test_steps_have_the_same_names_everywhere() -> None:
    inlines = set(re.findall(r"^inline (step_\w+)", (HERE / "protocol.pml").read_text(), re.M))
    document = set(re.findall(r"\bstep_\w+", (ROOT / "docs" / "concurrency.md").read_text()))
    steps = (ROOT / "native" / "state" / "granule.c").read_text()
    core = set(re.findall(r"\bldfs_(step_\w+)\(", steps))
    assert core, "no steps in native/state/granule.c"
    assert document - inlines == set(), "in the document, not in the model"
    assert core - inlines == set(), "in C, not in the model"


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [(r"LDFS_G_(\w+) = (\d+)", ""), (r"LDFS_PHASE_(\w+) = (\d+)", "PHASE_")],
    ids=["states", "phases"],
)
def test_numbers_are_those_of_the_header(pattern: str, prefix: str) -> None:
    model = dict(re.findall(r"^#define (\w+) (\d+)$", (HERE / "protocol.pml").read_text(), re.M))
    core = re.findall(pattern, (ROOT / "native" / "ldfs.h").read_text())
    assert core
    assert {name: model.get(prefix + name) for name, _ in core} == dict(core)
