# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that arrive while memory is armed, and whose handlers store to it themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

PRELUDE = """
import signal
from aftermath import unharmed, wait_for
from stealing import *
from livedumpfs import Arena
"""

Done = CompletedProcess[str]
Run = Callable[[str], Done]


@pytest.fixture
def run(beside_handlers: Callable[..., Done]) -> Run:
    return lambda script: beside_handlers("-c", PRELUDE + script)


def expect_done(done: Done) -> None:
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


@pytest.mark.parametrize("arming", ["swap", "mprotect"])
def test_a_storm_of_signals_in_c(run: Run, tmp_path: Path, arming: str) -> None:
    """Their handler stores to armed memory itself, and interrupts writers, INIT and RELEASE."""
    expect_done(
        run(
            f"""
from pathlib import Path
from aftermath import expect_equal, memory_file
from livedumpfs.dump import DumpSettings
place = Path({str(tmp_path)!r})
SIZE = 8 * MIB
def before(): handlers.calm()
def after(): handlers.storm(ctypes.c_void_p(arena.address), ctypes.c_uint64(SIZE), 200)
with Arena(SIZE) as arena, LiveDump(arena, quiesce=before, resume=after) as live:
    handlers.calm.restype = handlers.storms.restype = ctypes.c_uint64
    with unharmed(live, place):
        for number in range(6):
            with memory_file(SIZE) as reference:
                after()
                settings = DumpSettings(granule=4096, pool=MIB // 4, arming={arming!r}, force=True)
                live.init(place / "dump", settings, reference=reference)
                live.start()
                begun = handlers.storms()
                arena.live[::4096] += 1
                wait_for(lambda: handlers.storms() >= begun + 20, live.counters)
                live.sweep()
                arena.live[9::4096] += 1
                assert live.finish(300) == "consistent", live.failure
                live.release()
                handlers.calm()
                expect_equal(place / "dump", reference, SIZE)
    handlers.calm()  # the dump that unharmed() makes has begun it anew
print("done")
""",
        )
    )


def test_a_storm_of_signals_in_python(run: Run, tmp_path: Path) -> None:
    """Python's handlers store to armed memory, all over it, and so does what they interrupt."""
    expect_done(
        run(
            f"""
from livedumpfs.dump import DumpSettings
count = 0
def tick(*_):
    global count
    arena.live[count * 257 * 4096 % arena.size] += 1
    count += 1
with Arena(64 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    for one in (signal.SIGALRM, signal.SIGPROF): signal.signal(one, tick)
    arena.live[:] = 1
    live.init({str(tmp_path / "dump")!r}, DumpSettings(granule=4096))
    live.start()
    for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF): signal.setitimer(timer, 3e-4, 3e-4)
    for turn in range(200):
        wait_for(lambda: count > turn, live.counters)
        arena.live[(turn * 263 * 4096 + 7) % arena.size] += 1
    live.sweep()
    arena.live[7::4096] += 1
    assert live.finish(300) == "consistent", live.failure
    for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF): signal.setitimer(timer, 0)
    assert live.counters().faults > 100, live.counters()
    assert live.read(0, arena.size).count(1) == arena.size
print("done")
""",
        )
    )


def test_a_store_of_a_signal_that_comes_under_another_handler(run: Run) -> None:
    """It meets the granule that its own thread is copying: that must be over first."""
    expect_done(
        run(
            """
from livedumpfs import DumpSettings
with Arena(64 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    for turn in range(10):  # one is enough, unless no signal came in time
        arena.live[:] = 1
        live.init(None, DumpSettings(granule=MIB)); live.start()
        handlers.steal_open(0)
        met = handlers.walk_under_ticks(ctypes.c_void_p(arena.address), ctypes.c_uint64(MIB), 64)
        assert live.counters().lost == 0
        assert live.read(0, 64 * MIB).count(1) == 64 * MIB
        retaken(live)
        live.release()
        if met: break
    assert met > 0
print("done")
""",
        )
    )


def test_resume_stores_under_a_handler_that_came_while_the_machine_stood(run: Run) -> None:
    """It returns, so that the store faults again and again: the guard must be awake by then."""
    script = """
def quiesce(): handlers.steal_and_return()
def resume(): arena.live[65535] = 7
with Arena(MIB) as arena, LiveDump(arena, quiesce=quiesce, resume=resume) as live:
    arm(live)
    assert live.counters().retaken == 1 and handlers.faults_of_others(0)
    expect_instant(live)
print("done")
"""
    expect_done(run(script))
