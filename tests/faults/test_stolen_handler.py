# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGSEGV or SIGBUS is taken from us while memory is armed: ours goes back on top, and the handler
that took it gets the faults that are not ours; or the dump is torn, and the machine goes on."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from aftermath import expect_incomplete

PRELUDE = """
import faulthandler, gc, signal
from aftermath import unharmed, wait_for
from stealing import *
from livedumpfs import Arena
"""

Done = CompletedProcess[str]


@dataclass
class Run:
    """Runs a script that dumps by a backend whose stores get that signal."""

    beside_handlers: Callable[..., Done]
    signal: signal.Signals

    def __call__(self, script: str) -> Done:
        backend = self.signal.name.lower()
        return self.beside_handlers("-c", PRELUDE + script, backend=backend)


@pytest.fixture(params=[signal.SIGSEGV, signal.SIGBUS], ids=lambda one: one.name)
def run(request: pytest.FixtureRequest, beside_handlers: Callable[..., Done]) -> Run:
    return Run(beside_handlers, request.param)


def expect_done(done: Done) -> None:
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


def expect_crash(done: Done, traceback: bool = False) -> None:
    """It died of its own crash, which came last, and did not spin until the deadline."""
    last = re.search(r"crash by (SIG\w+)\n$", done.stdout)
    assert last and done.returncode == -signal.Signals[last[1]], done
    assert done.stderr.count("Fatal Python error: ") == traceback, done
    assert len(done.stderr) < 10_000


ARMED = """
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arm(live)
    {}
    expect_instant(live)
print("done")
"""
CRASHES = """
with Arena(MIB) as arena, LiveDump(arena) as live:
    arm(live)
    {}
    expect_instant(live)
    {}
    crash()
"""
DURING_AND_AFTER = pytest.mark.parametrize(
    "then", ["pass", "live.release()"], ids=["during", "after"]
)


def lines(*of_them: str) -> str:
    return "\n    ".join(of_them)


# ------------------------------------------------------------------ in the time of one look


@pytest.mark.parametrize("taken", ["signal.SIG_DFL", "signal.SIG_IGN", "lambda *_: None"])
def test_it_is_taken_and_put_back(run: Run, taken: str) -> None:
    steps = (
        f"signal.signal(SIGNAL, {taken})",
        "retaken(live)",
        "assert live.counters().failure.error == 0",
    )
    expect_done(run(ARMED.format(lines(*steps))))


def test_a_store_in_the_window_waits_under_a_handler_that_returns(run: Run) -> None:
    """Python's own only notes the signal: the store faults again until ours is back."""
    steps = (
        "seen = []",
        "signal.signal(SIGNAL, lambda *_: seen.append(1))",
        "arena.live[65535] = 7  # at once: the guard has not looked yet",
        "assert live.counters().retaken == 1, 'nothing was taken: nothing was tested'",
    )
    expect_done(run(ARMED.format(lines(*steps))))


def test_a_store_in_the_window_dies_of_the_default_and_the_target_says_so(
    run: Run, tmp_path: Path
) -> None:
    """This is what is left of the window; docs/concurrency.md says so."""
    script = f"""
with Arena(64 * MIB) as arena:
    live = LiveDump(arena)
    arm(live, {str(tmp_path / "dump")!r})
    pages = iter(range(arena.size - 1, 0, -65536))
    while True:  # some of the stores come before the guard does
        signal.signal(SIGNAL, signal.SIG_DFL)
        arena.live[next(pages)] = 2
"""
    done = run(script)
    assert done.returncode == -run.signal, done
    expect_incomplete(tmp_path / "dump")


# ------------------------------------------------------------------ ours is put back on top


def test_the_default_and_ignore_again_and_again(run: Run) -> None:
    """They call no handler, so one entry of ours each is enough. A crash dies as without us."""
    steps = (
        "for times in range(1, 13):",
        "    signal.signal(SIGNAL, signal.SIG_IGN if times % 2 else signal.SIG_DFL)",
        "    retaken(live, times)",
    )
    expect_crash(run(CRASHES.format(lines(*steps), "pass")))


def test_a_handler_that_chains_keeps_its_own_faults(run: Run) -> None:
    """First on top of ours, then below it; its page is its own in both places, and after us."""
    script = """
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arm(live)
    handlers.steal(0)
    arena.live[0] = 2
    retaken(live)
    assert handlers.fault_of_its_own(0) == 1
    assert handlers.fault_of_its_own(0) == 2
    before = handlers.faults_of_others(0)
    expect_instant(live)
    assert handlers.faults_of_others(0) == before, "faults of the arena came to it"
assert handlers.fault_of_its_own(0) == 3
print("done")
"""
    expect_done(run(script))


@DURING_AND_AFTER
@pytest.mark.parametrize("kind", ["steal", "steal_alone"], ids=["chain", "alone"])
def test_two_handlers_after_each_other(run: Run, then: str, kind: str) -> None:
    """Each gets its own faults; a crash goes through those that chain to the one before us all."""
    steps = (
        "for n in range(2):",
        f"    handlers.{kind}(n)",
        "    retaken(live, n + 1)",
        "assert handlers.fault_of_its_own(1) == 1",
        f"assert {kind!r} == 'steal_alone' or handlers.fault_of_its_own(0) == 1",
    )
    done = run("faulthandler.enable()" + CRASHES.format(lines(*steps), then))
    expect_crash(done, traceback=kind == "steal")


@DURING_AND_AFTER
@pytest.mark.parametrize("order", ["10", "01"], ids=["last first", "first first"])
def test_handlers_that_withdraw(run: Run, order: str, then: str) -> None:
    """They put back the entry of ours that they found; no handler takes a crash after that."""
    steps = (
        "for n in range(2):",
        "    handlers.steal(n)",
        "    retaken(live, n + 1)",
        f"for n in {order!r}:",
        "    handlers.withdraw(int(n))",
        "    assert lib.ldfs_fault_verify(SIGNAL) == 0",
        "    arena.live[int(n) * 65536] = 7",
    )
    expect_crash(run(CRASHES.format(lines(*steps), then)))


@DURING_AND_AFTER
def test_a_crash_under_faulthandler_that_was_enabled_meanwhile(run: Run, then: str) -> None:
    """It raises the signal anew for the handler before it, which is ours."""
    steps = ("faulthandler.enable()", "retaken(live)")
    expect_crash(run(CRASHES.format(lines(*steps), then)), traceback=True)


@DURING_AND_AFTER
def test_faulthandler_on_and_off(run: Run, then: str) -> None:
    """Any number of times: no more than one entry of ours is used up by that."""
    steps = (
        "for times in range(1, 6):",
        "    faulthandler.enable()",
        "    retaken(live, times)",
        "    faulthandler.disable()",
        "    arena.live[times * 65536] = 2",
        "    assert lib.ldfs_fault_verify(SIGNAL) == 0",
    )
    expect_crash(run(CRASHES.format(lines(*steps), then)))


@pytest.mark.parametrize("by_flag", [0, 1], ids=["puts back", "SA_RESETHAND"])
def test_one_that_wants_one_fault_only(run: Run, by_flag: int) -> None:
    """The next one is of those before it, as the kernel would have it: the crash ends."""
    steps = (f"handlers.steal_once({by_flag})", "retaken(live)")
    expect_crash(run(CRASHES.format(lines(*steps), "assert handlers.faults_of_others(0) == 0")))


def test_one_that_wants_one_fault_takes_the_signal_from_nobody(run: Run) -> None:
    steps = (
        "handlers.steal_for_one_fault(0); retaken(live)",
        "assert handlers.fault_of_its_own(0) == 1 and lib.ldfs_fault_verify(SIGNAL) == 0",
    )
    expect_done(run(ARMED.format(lines(*steps))))


def test_one_that_takes_it_twice_makes_no_ring(run: Run) -> None:
    """It remembers the entry that was put over itself, and calls it, or puts it back."""
    steps = (
        "for times in range(1, 3):",
        "    handlers.steal(0)",
        "    retaken(live, times)",
        "    assert handlers.fault_of_its_own(0) == times",
    )
    expect_crash(
        run("faulthandler.enable()" + CRASHES.format(lines(*steps), "pass")), traceback=True
    )
    steps = ("for times in range(1, 3):", "    handlers.steal_once(0); retaken(live, times)")
    expect_crash(run(CRASHES.format(lines(*steps), "pass")))


def test_one_that_jumps_out(run: Run) -> None:
    """It leaves no mask behind, nor a fault that we believe to pass on."""
    steps = (
        "for n in range(200):",
        "    before = live.counters().retaken",
        "    assert handlers.jump_out(5000) == 5000",
        "    arena.live[n * 4096] = 2",
        "    if live.counters().retaken > before: break",
        "assert live.counters().retaken, 'it was never below ours'",
    )
    expect_crash(run(CRASHES.format(lines(*steps), "pass")))


def test_masks_are_as_the_kernel_would_have_them(run: Run) -> None:
    """One that calls ours goes on with its own signals blocked."""
    steps = (
        "handlers.steal(0)",
        "assert handlers.fault_of_its_own(3) == 1",
        "retaken(live)",
        "assert handlers.fault_of_its_own(3) == 2",
        "assert handlers.faults_of_others(0) == 2 and handlers.masks_lost(0) == 0",
    )
    expect_done(run("handlers.steal(3)" + ARMED.format(lines(*steps))))


# ------------------------------------------------------------------ it cannot be put back again

GIVES_UP = {
    "a third handler": "handlers.steal(0); retaken(live, 1); handlers.steal(1); retaken(live, 2); "
    "handlers.steal(2)",
    "one handler for the third time": "handlers.steal(2); retaken(live, 1); handlers.steal(2); "
    "retaken(live, 2); handlers.steal(2)",
}


@pytest.mark.parametrize("steals", GIVES_UP.values(), ids=GIVES_UP)
def test_the_dump_is_torn_and_the_machine_goes_on(run: Run, steals: str, tmp_path: Path) -> None:
    """Also stores that are under way; the handler has its faults, those before it theirs, and START
    refuses until it has withdrawn."""
    script = f"""
handlers.steal(3)
with Arena(MIB) as arena, LiveDump(arena) as live:
    arm(live, {str(tmp_path / "dump")!r})
    arena.live[: MIB // 4] = 2
    {steals}
    arena.live[MIB // 2] = 2
    expect_torn(live)
    assert handlers.fault_of_its_own(2) == 1 and handlers.fault_of_its_own(3) == 1
    live.sweep()
    assert live.finish(300, check=False) == "torn"
    live.release()
    try:
        live.init(None, SETTINGS)
    except OSError as error:
        assert f"another {{SIGNAL.name}} handler was installed" in str(error)
    arena.live[:] = 7
    handlers.withdraw(2)
    live.init(None, SETTINGS); live.start()
    arena.live[:] = 8
    assert live.read(0, MIB).count(7) == MIB and live.so_far == "consistent"
    live.release()
    crash()
"""
    expect_crash(run(script))
    from livedumpfs import open_dump

    with open_dump(tmp_path / "dump") as dump:
        assert dump.verdict == "torn"
        assert dump.read_arena(0, 65536) == b"\1" * 65536, "what was saved before is right"


def test_a_store_goes_on_that_waits_under_a_handler_that_returns(run: Run) -> None:
    """Python's for the third time: until all is open it faults again and again."""
    script = """
with Arena(MIB) as arena, LiveDump(arena) as live:
    arm(live)
    for times in range(1, 4):
        signal.signal(SIGNAL, lambda *_: None)
        arena.live[times * 65536] = 7
        assert live.counters().retaken == min(times, 2)
    assert [arena.live[times * 65536] for times in range(1, 4)] == [7, 7, 7]
    expect_torn(live)
    live.release()
print("done")
"""
    expect_done(run(script))


def test_one_that_has_withdrawn_is_not_called_and_the_one_before_us_is(run: Run) -> None:
    script = """
handlers.steal(3)
with Arena(MIB) as arena, LiveDump(arena) as live:
    arm(live)
    handlers.steal(0); retaken(live, 1); handlers.withdraw(0)
    assert lib.ldfs_fault_verify(SIGNAL) == 0
    handlers.steal(1); retaken(live, 2)
    handlers.steal(1)
    expect_torn(live)
    assert handlers.fault_of_its_own(3) == 1 and handlers.faults_of_others(0) == 0
    live.release()
print("done")
"""
    expect_done(run(script))


# ------------------------------------------------------------------ when arenas come and go


def test_the_next_arenas_go_over_the_same_handler(run: Run) -> None:
    """It has the signal between them; no entry is used up by that."""
    script = """
for times in range(1, 11):
    with Arena(MIB) as arena, LiveDump(arena) as live:
        arm(live)
        if times == 1:
            handlers.steal(0)
            retaken(live)
        expect_instant(live)
        assert handlers.fault_of_its_own(0) == 2 * times - 1
    del arena, live
    gc.collect()
    assert gone()
    assert handlers.fault_of_its_own(0) == 2 * times
print("done")
"""
    expect_done(run(script))


def test_the_handler_that_took_it_has_it_when_the_last_arena_is_gone(run: Run) -> None:
    script = """
def caught():
    line = next(l for l in open("/proc/self/status") if l.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) & 1 << SIGNAL - 1)
signal.signal(SIGNAL, lambda *_: None)
arena = Arena(MIB); live = LiveDump(arena)
arm(live)
signal.signal(SIGNAL, signal.SIG_DFL)
retaken(live)
live.release(); live.close(); arena.close(); del live, arena; gc.collect()
assert gone() and not caught()
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live): arm(live)
print("done")
"""
    expect_done(run(script))


def test_an_arena_is_made_where_no_entry_is_left(run: Run) -> None:
    """It works, but START refuses; the handler there is left alone."""
    script = """
arena = Arena(MIB); live = LiveDump(arena); arm(live)
for n in range(2): handlers.steal(n); retaken(live, n + 1)
handlers.steal(2)
expect_torn(live)
live.release(); live.close(); arena.close(); del live, arena; gc.collect()
with Arena(MIB) as arena, LiveDump(arena) as live:
    assert gone() and handlers.fault_of_its_own(2) == 1
    arena.live[:] = 1
    try:
        live.init(None, SETTINGS); live.start()
    except OSError as error: print(error)
print("done")
"""
    done = run(script)
    assert f"another {run.signal.name} handler was installed" in done.stdout
    expect_done(done)
