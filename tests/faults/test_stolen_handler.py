# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGSEGV is taken from us while memory is armed: it is noticed, ours goes back on top, and the one
that took it gets the faults that are not ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aftermath import expect_incomplete

FOLDER = Path(__file__).resolve().parent

PRELUDE = """
import ctypes, faulthandler, gc, os, resource, signal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from aftermath import unharmed, wait_for
from livedumpfs import Arena, LiveDump
from livedumpfs.core.capi import lib
MIB = 1 << 20
handlers = ctypes.CDLL(os.environ["HANDLERS"])
def armed(live):
    live.machine.arena.live[:] = 1
    live.init(None); live.start()
def retaken(live, times=1):
    wait_for(lambda: live.counters().retaken >= times, live.counters)
    assert lib.ldfs_fault_verify() == 0
def expect_instant(live):
    live.machine.arena.live[:] = 2
    assert live.read(0, MIB).count(1) == MIB
    assert live.so_far == "consistent", live.counters()
"""


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("handlers") / "handlers.so"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += ["-o", str(library), str(FOLDER / "handlers.c")]
    subprocess.run(command, check=True, timeout=300)
    return library


def run(handlers: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONFAULTHANDLER"}
    top = str(FOLDER.parents[1])
    environment |= {"HANDLERS": str(handlers), "PYTHONPATH": f"{top}:{FOLDER}"}
    command = [sys.executable, "-c", PRELUDE + script]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def expect_done(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


@pytest.mark.parametrize("taken", ["signal.SIG_DFL", "signal.SIG_IGN", "lambda *_: None"])
def test_it_is_taken_and_put_back(handlers: Path, taken: str) -> None:
    expect_done(
        run(
            handlers,
            f"""
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    armed(live)
    signal.signal(signal.SIGSEGV, {taken})
    retaken(live)
    expect_instant(live)
    assert live.counters().failure.error == 0
print("done")
""",
        )
    )


def test_again_and_again(handlers: Path) -> None:
    expect_done(
        run(
            handlers,
            """
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    armed(live)
    for times in range(1, 13):
        signal.signal(signal.SIGSEGV, signal.SIG_DFL if times % 2 else signal.SIG_IGN)
        retaken(live, times)
    expect_instant(live)
print("done")
""",
        )
    )


def test_a_store_in_the_window_waits_under_a_handler_that_returns(handlers: Path) -> None:
    """Python's own only notes the signal: the store faults again until ours is back."""
    expect_done(
        run(
            handlers,
            """
seen = []
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    armed(live)
    for times in range(1, 6):
        signal.signal(signal.SIGSEGV, lambda *_: seen.append(1))
        arena.live[times * 65536 - 1] = 7  # at once: nobody has looked yet
    assert live.counters().retaken > 0, "nothing was taken: nothing was tested"
    expect_instant(live)
print("done")
""",
        )
    )


def test_a_store_in_the_window_dies_of_the_default_and_the_target_says_so(
    handlers: Path, tmp_path: Path
) -> None:
    """This is what is left of the window; docs/concurrency.md says so."""
    script = f"""
with Arena(64 * MIB) as arena:
    live = LiveDump(arena)
    arena.live[:] = 1
    live.init({str(tmp_path / "dump")!r}); live.start()
    pages = iter(range(arena.size - 1, 0, -65536))
    while True:  # some of the stores come before the guard does
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        arena.live[next(pages)] = 2
"""
    done = run(handlers, script)
    assert done.returncode == -signal.SIGSEGV, done
    expect_incomplete(tmp_path / "dump")
    expect_done(
        run(
            handlers,
            """
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live): armed(live)
print("done")
""",
        )
    )


def test_a_handler_that_chains_keeps_its_own_faults(handlers: Path) -> None:
    """First on top of ours, then below it; its page is its own in both places."""
    expect_done(
        run(
            handlers,
            """
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    armed(live)
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
""",
        )
    )


@pytest.mark.parametrize("open", [True, False], ids=["during", "after"])
def test_a_crash_still_dies_through_a_handler_that_chains(handlers: Path, open: bool) -> None:
    """To it, from it to ours, and from ours to the one before both: faulthandler. No ring."""
    done = run(
        handlers,
        f"""
faulthandler.enable()
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    handlers.steal(0)
    retaken(live)
    if {open}: ctypes.string_at(0)
del arena, live
gc.collect()
ctypes.string_at(0)
""",
    )
    assert done.returncode == -signal.SIGSEGV, done
    assert done.stderr.count("Fatal Python error: Segmentation fault") >= 1, done
    assert len(done.stderr) < 10_000


def expect_crash(done: subprocess.CompletedProcess[str]) -> None:
    """It died of its own crash, which came last, and did not spin until the deadline."""
    assert done.returncode == -signal.SIGSEGV, done
    assert done.stdout.endswith("crash\n"), done
    assert len(done.stderr) < 10_000


CRASH = """
print("crash", flush=True)
ctypes.string_at(8)
"""


@pytest.mark.parametrize("armed", [True, False], ids=["during", "after"])
def test_two_handlers_after_each_other(handlers: Path, armed: bool) -> None:
    """Both are called, each gets its own faults, the one before all of us gets the crash."""
    done = run(
        handlers,
        f"""
faulthandler.enable()
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    for n in range(2):
        handlers.steal(n)
        retaken(live, n + 1)
    expect_instant(live)
    if not {armed}: live.release()
    for n in range(2):
        assert handlers.fault_of_its_own(n) == 1
    {CRASH.replace(chr(10), chr(10) + "    ")}
""",
    )
    expect_crash(done)
    assert done.stderr.count("Fatal Python error: Segmentation fault") == 1


@pytest.mark.parametrize("order", ["10", "01"], ids=["last first", "first first"])
@pytest.mark.parametrize("released", [False, True], ids=["during", "after"])
def test_handlers_that_withdraw(handlers: Path, order: str, released: bool) -> None:
    """They put back the entry of ours that they found; a crash after that is nobody's."""
    done = run(
        handlers,
        f"""
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    for n in range(2):
        handlers.steal(n)
        retaken(live, n + 1)
    for n in {order!r}:
        handlers.withdraw(int(n))
        assert lib.ldfs_fault_verify() == 0
        arena.live[int(n) * 65536] = 7
    expect_instant(live)
    if {released}: live.release()
    {CRASH.replace(chr(10), chr(10) + "    ")}
""",
    )
    expect_crash(done)


@pytest.mark.parametrize("released", [False, True], ids=["during", "after"])
def test_faulthandler_on_and_off(handlers: Path, released: bool) -> None:
    done = run(
        handlers,
        f"""
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    faulthandler.enable()
    retaken(live)
    arena.live[0] = 2
    faulthandler.disable()
    expect_instant(live)
    if {released}: live.release()
    {CRASH.replace(chr(10), chr(10) + "    ")}
""",
    )
    expect_crash(done)
    assert "Fatal Python error" not in done.stderr


@pytest.mark.parametrize("by_flag", [0, 1], ids=["puts back", "SA_RESETHAND"])
def test_one_that_wants_one_fault_only(handlers: Path, by_flag: int) -> None:
    """The next one is of those before him, as the kernel would have it: the crash ends."""
    done = run(
        handlers,
        f"""
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    handlers.steal_once({by_flag})
    retaken(live)
    expect_instant(live)
    assert handlers.faults_of_others(0) == 0
    {CRASH.replace(chr(10), chr(10) + "    ")}
""",
    )
    expect_crash(done)


def test_a_crash_over_the_default(handlers: Path) -> None:
    done = run(
        handlers,
        f"""
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    retaken(live)
    expect_instant(live)
    {CRASH.replace(chr(10), chr(10) + "    ")}
""",
    )
    expect_crash(done)


def test_one_that_jumps_out(handlers: Path) -> None:
    """What it leaves behind is in nobody's way: not a mask, not a fault that we believe to pass
    on."""
    done = run(
        handlers,
        f"""
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    for n in range(200):
        before = live.counters().retaken
        assert handlers.jump_out(5000) == 5000
        arena.live[n * 4096] = 2
        if live.counters().retaken > before: break
    assert live.counters().retaken, "it was never below ours"
    expect_instant(live)
    {CRASH.replace(chr(10), chr(10) + "    ")}
""",
    )
    expect_crash(done)


def test_handlers_that_call_nobody(handlers: Path) -> None:
    """The crash is the last one's, and kills as without us."""
    done = run(
        handlers,
        f"""
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    for n in range(2):
        handlers.steal_alone(n)
        retaken(live, n + 1)
    expect_instant(live)
    assert handlers.fault_of_its_own(1) == 1
    {CRASH.replace(chr(10), chr(10) + "    ")}
""",
    )
    expect_crash(done)


def test_one_that_takes_it_again_and_again(handlers: Path) -> None:
    """It then calls the entry that was put over itself: no ring, and its faults stay its own. Two
    of them in turn would be a ring without us."""
    done = run(
        handlers,
        f"""
faulthandler.enable()
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    for times in range(1, 6):
        handlers.steal(0)
        retaken(live, times)
        assert handlers.fault_of_its_own(0) == times
    handlers.steal(1)
    retaken(live, 6)
    assert handlers.fault_of_its_own(0) == 6 and handlers.fault_of_its_own(1) == 1
    expect_instant(live)
    {CRASH.replace(chr(10), chr(10) + "    ")}
""",
    )
    expect_crash(done)
    assert done.stderr.count("Fatal Python error: Segmentation fault") == 1


def test_more_than_there_are_entries(handlers: Path) -> None:
    """Ours is on top again in any case; who came too late is counted, the others are called."""
    done = run(
        handlers,
        f"""
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    for times in range(1, 21):
        handlers.steal(times % 4)
        retaken(live, times)
        arena.live[times * 4096] = 2
    assert live.counters().left_out == 4, live.counters()
    expect_instant(live)
    {CRASH.replace(chr(10), chr(10) + "    ")}
""",
    )
    expect_crash(done)


def test_the_next_arenas_go_over_the_same_handler(handlers: Path) -> None:
    """It has the signal between them; no entry is used up by that."""
    expect_done(
        run(
            handlers,
            """
for times in range(1, 41):
    with Arena(MIB) as arena, LiveDump(arena) as live:
        armed(live)
        if times == 1:
            handlers.steal(0)
            retaken(live)
        expect_instant(live)
        assert handlers.fault_of_its_own(0) == 2 * times - 1
        assert not live.counters().left_out
    del arena, live
    gc.collect()
    assert lib.ldfs_fault_verify() < 0
    assert handlers.fault_of_its_own(0) == 2 * times
print("done")
""",
        )
    )


def test_a_crash_below_faulthandler_ends_in_its_traceback(handlers: Path) -> None:
    """It was enabled during the dump, and ours put over it: it raises the signal anew for the one
    before it, which is ours."""
    done = run(
        handlers,
        """
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    faulthandler.enable()
    retaken(live)
    expect_instant(live)
    def crash(): ctypes.string_at(0)
    crash()
""",
    )
    assert done.returncode == -signal.SIGSEGV, done
    assert "Fatal Python error: Segmentation fault" in done.stderr and "in crash" in done.stderr
    assert len(done.stderr) < 10_000


def test_whoever_took_it_has_it_when_the_last_arena_is_gone(handlers: Path) -> None:
    expect_done(
        run(
            handlers,
            """
def caught():
    line = next(l for l in open("/proc/self/status") if l.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) & 1 << signal.SIGSEGV - 1)
signal.signal(signal.SIGSEGV, lambda *_: None)
arena = Arena(MIB); live = LiveDump(arena)
armed(live)
signal.signal(signal.SIGSEGV, signal.SIG_DFL)
retaken(live)
live.release(); live.close(); arena.close(); del live, arena; gc.collect()
assert lib.ldfs_fault_verify() < 0 and not caught()
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live): armed(live)
print("done")
""",
        )
    )


def test_a_writer_that_blocks_sigsegv_during_a_dump(handlers: Path, tmp_path: Path) -> None:
    """The kernel kills a process whose fault is blocked: nobody can save it. One that blocks it,
    and does not write, is harmless; the dump on the target is incomplete."""
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGSEGV})"
    unblock = block.replace("SIG_BLOCK", "SIG_UNBLOCK")
    expect_done(
        run(
            handlers,
            f"""
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    armed(live)
    {block}
    live.read(0, MIB)
    {unblock}
    expect_instant(live)
print("done")
""",
        )
    )
    done = run(
        handlers,
        f"""
arena = Arena(MIB); live = LiveDump(arena)
arena.live[:] = 1
live.init({str(tmp_path / "dump")!r}); live.start()
{block}
arena.live[0] = 2
""",
    )
    assert done.returncode == -signal.SIGSEGV, done
    expect_incomplete(tmp_path / "dump")


@pytest.mark.parametrize("arming", ["swap", "mprotect"])
def test_a_storm_of_signals_in_c(handlers: Path, tmp_path: Path, arming: str) -> None:
    """Their handler stores to armed memory itself, and interrupts writers, INIT and RELEASE."""
    expect_done(
        run(
            handlers,
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


def test_a_storm_of_signals_in_python(handlers: Path, tmp_path: Path) -> None:
    """Python's handlers store to armed memory, all over it, and so does what they interrupt."""
    expect_done(
        run(
            handlers,
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


def test_one_that_had_it_between_two_arenas_takes_it_again(handlers: Path) -> None:
    """The one who took it from the second arena first is still below."""
    expect_done(
        run(
            handlers,
            """
arena = Arena(MIB); live = LiveDump(arena); armed(live)
handlers.steal(0); retaken(live)
live.release(); live.close(); arena.close(); del live, arena; gc.collect()
handlers.withdraw(0)
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    armed(live)
    handlers.steal(1); retaken(live, 1)
    assert handlers.fault_of_its_own(1) == 1
    handlers.steal(0); retaken(live, 2)
    assert handlers.fault_of_its_own(0) == 1
    assert handlers.fault_of_its_own(1) == 2
    expect_instant(live)
print("done")
""",
        )
    )


def test_a_crash_ends_also_with_one_that_twice_puts_back_what_it_found(handlers: Path) -> None:
    script = """
with Arena(MIB) as arena, LiveDump(arena) as live:
    armed(live)
    handlers.steal_once(0); retaken(live, 1)
    handlers.steal_once(0); retaken(live, 2)
    print("now", flush=True)
    ctypes.string_at(8)
"""
    done = run(handlers, script)
    assert (done.returncode, done.stdout) == (-signal.SIGSEGV, "now\n"), done


def test_who_has_withdrawn_is_not_called_and_who_was_before_us_is(handlers: Path) -> None:
    expect_done(
        run(
            handlers,
            """
from pathlib import Path
def looks():  # of the guard, which sleeps after each
    tasks = [t for t in Path("/proc/self/task").iterdir()
             if (t / "comm").read_text().strip() == "ldfs-guard"]
    lines = (tasks[0] / "status").read_text().splitlines()
    return int(next(l for l in lines if l.startswith("voluntary_ctxt")).split()[1])
handlers.steal(3)
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    armed(live)
    handlers.steal(0); retaken(live, 1); handlers.withdraw(0)
    seen = looks()
    wait_for(lambda: looks() > seen + 5)
    handlers.steal(1); retaken(live, 2)
    assert handlers.fault_of_its_own(3) == 1
    handlers.steal(1); retaken(live, 3)
    assert handlers.fault_of_its_own(3) == 2
    assert handlers.faults_of_others(0) == 0
    expect_instant(live)
print("done")
""",
        )
    )


def test_one_that_wants_one_fault_takes_the_signal_from_nobody(handlers: Path) -> None:
    expect_done(
        run(
            handlers,
            """
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    armed(live)
    handlers.steal_for_one_fault(0); retaken(live)
    assert handlers.fault_of_its_own(0) == 1 and lib.ldfs_fault_verify() == 0
    expect_instant(live)
print("done")
""",
        )
    )


def test_masks_are_as_the_kernel_would_have_them(handlers: Path) -> None:
    """One that calls ours goes on with its own signals blocked."""
    expect_done(
        run(
            handlers,
            """
handlers.steal(3)
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    armed(live)
    handlers.steal(0)
    assert handlers.fault_of_its_own(3) == 1
    retaken(live)
    assert handlers.fault_of_its_own(3) == 2
    assert handlers.faults_of_others(0) == 2 and handlers.masks_lost(0) == 0
    expect_instant(live)
print("done")
""",
        )
    )


def test_a_store_of_a_signal_that_comes_under_somebody_elses_handler(handlers: Path) -> None:
    """It meets the granule that its own thread is copying: that must be over first."""
    expect_done(
        run(
            handlers,
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


def test_a_page_that_the_program_made_read_only_itself_is_a_crash(handlers: Path) -> None:
    script = """
with Arena(MIB) as arena:
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(arena.address), 4096, 1) == 0
    print("now", flush=True)
    arena.live[0] = 1
"""
    done = run(handlers, script)
    assert (done.returncode, done.stdout) == (-signal.SIGSEGV, "now\n"), done
