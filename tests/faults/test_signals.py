# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGSEGV is shared: faults that are not ours, handlers put over ours, threads that block it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from aftermath import expect_incomplete

FOLDER = Path(__file__).resolve().parent
PRELUDE = """
import ctypes, faulthandler, os, resource, signal, sys, tempfile, threading
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from aftermath import expect_free, expect_next_dump, unharmed, wait_for
from livedumpfs import Arena, LiveDump
from livedumpfs.core.capi import lib
from livedumpfs.dump import DumpSettings
MIB = 1 << 20
def begin(live):
    live.machine.arena.live[:] = 1
    live.init(None); live.start()
def expect_instant(live):
    live.machine.arena.live[:] = 2
    assert live.read(0, MIB).count(1) == MIB
def armed(arena, target=None):
    live = LiveDump(arena)
    live.init(target)
    live.start()
    return live
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PRELUDE + script]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONFAULTHANDLER"}
    environment["PYTHONPATH"] = f"{FOLDER.parents[1]}:{FOLDER}"
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def test_a_fault_that_is_not_ours_still_kills() -> None:
    done = run("""
arena = Arena(MIB); a = arena.array("u1", MIB); a[:] = 1
live = armed(arena)
a[0] = 2
ctypes.string_at(0)
""")
    assert done.returncode == -signal.SIGSEGV, done


def test_a_fault_that_is_not_ours_ends_in_pythons_own_traceback() -> None:
    done = run("""
faulthandler.enable()
arena = Arena(MIB); a = arena.array("u1", MIB); a[:] = 1
live = armed(arena)
a[0] = 2
def crash(): ctypes.string_at(0)
crash()
""")
    assert done.returncode == -signal.SIGSEGV, done
    assert "Fatal Python error: Segmentation fault" in done.stderr and "in crash" in done.stderr


def test_a_signal_that_was_sent_kills() -> None:
    done = run("""
arena = Arena(MIB)
os.kill(os.getpid(), signal.SIGSEGV)
""")
    assert done.returncode == -signal.SIGSEGV, done


def test_the_handler_leaves_with_the_last_arena() -> None:
    done = run("""
import gc
from livedumpfs.core.capi import lib
arena, other = Arena(MIB), Arena(MIB)
assert lib.ldfs_fault_verify() == 0
arena.close(); gc.collect()
assert lib.ldfs_fault_verify() == 0
other.close(); gc.collect()
assert lib.ldfs_fault_verify() < 0
Arena(MIB).array("u1", MIB)[:] = 1
print("done")
""")
    assert done.stdout == "done\n", done


def test_start_refuses_when_somebody_took_sigsegv() -> None:
    done = run("""
arena = Arena(MIB); a = arena.array("u1", MIB); a[:] = 1
live = LiveDump(arena)
with unharmed(live):
    live.init(None)
    faulthandler.enable()
    for step in (live.machine.check_start, live.start):
        try:
            step()
        except OSError as error:
            print(error)
    live.machine.check_start("uffd")
    a[:] = 2
    faulthandler.disable()
    live.start(); a[:] = 3
    print(live.counters().faults > 0, live.read(0, MIB).count(2) == MIB)
""")
    assert done.stdout.count("another SIGSEGV handler was installed after the arena was made") == 2
    assert "Transport" not in done.stdout, done
    assert done.stdout.endswith("True True\n"), done


def test_faulthandler_enabled_during_a_dump_is_survived() -> None:
    done = run("""
arena = Arena(4 * MIB); a = arena.array("u1", 4 * MIB)
live = LiveDump(arena)
with unharmed(live):
    a[:] = 1
    live.init(None); live.start()
    faulthandler.enable()
    a[0] = 2
    a[3 * MIB] = 2
    print(live.read(0, 4 * MIB).count(1) == 4 * MIB, int(a[0]), int(a[3 * MIB]))
    wait_for(lambda: lib.ldfs_fault_verify() == 0)
""")
    assert done.returncode == 0, done
    assert done.stdout == "True 2 2\n", done


def test_start_refuses_a_thread_that_blocks_sigsegv() -> None:
    done = run("""
arena = Arena(MIB); a = arena.array("u1", MIB); a[:] = 1
blocked, end = threading.Event(), threading.Event()
def block():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGSEGV}); blocked.set(); end.wait(300)
live = LiveDump(arena); live.init(None)
thread = threading.Thread(target=block); thread.start(); blocked.wait(300)
for step in (live.machine.check_start, live.start):
    try:
        step()
    except OSError as error:
        print(error)
a[:] = 2
end.set(); thread.join()
live.start(); a[:] = 3
print(live.read(0, MIB).count(2) == MIB)
live.release()
with unharmed(live): pass
""")
    assert done.stdout.count("a thread of this process blocks SIGSEGV") == 2, done
    assert "deadlock" not in done.stdout and done.stdout.endswith("True\n"), done


def test_two_arenas_at_once_and_errno_is_kept() -> None:
    done = run("""
arenas = [Arena(MIB) for _ in range(3)]
arrays = [a.array("u1", MIB) for a in arenas]
for a in arrays: a[:] = 1
lives = [armed(a) for a in arenas]
for a in arrays: a[:] = 2
print([live.read(0, MIB).count(1) == MIB for live in lives])
lives[1].release()
arrays[1][:] = 3
print(lives[0].read(0, MIB).count(1) == MIB, lives[0].counters().faults > 0)
for live in lives:
    live.release()
    expect_free(live.machine.arena)
with tempfile.TemporaryDirectory() as place:
    for live in lives: expect_next_dump(live, Path(place))
""")
    assert done.stdout == "[True, True, True]\nTrue True\n", done


def test_a_handler_that_outlived_the_last_arena_makes_no_ring() -> None:
    """faulthandler sits on top of ours when the last arena goes, and stays there: a new arena must
    not take it for the handler before ours, or a real crash would go round for ever."""
    done = run("""
import gc
arena = Arena(MIB)
faulthandler.enable()
arena.close(); gc.collect()
arena = Arena(MIB); a = arena.array("u1", MIB); a[:] = 1
live = armed(arena)
a[0] = 2
ctypes.string_at(0)
""")
    assert done.returncode == -signal.SIGSEGV, done
    assert len(done.stderr) < 10_000


def test_a_writer_that_blocks_sigsegv_during_a_dump(tmp_path: Path) -> None:
    """The kernel kills a process whose fault is blocked: nobody can save it. One that blocks it,
    and does not write, is harmless; the dump on the target is incomplete."""
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGSEGV})"
    unblock = block.replace("SIG_BLOCK", "SIG_UNBLOCK")
    done = run(f"""
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    begin(live)
    {block}
    live.read(0, MIB)
    {unblock}
    expect_instant(live)
print("done")
""")
    assert done.returncode == 0 and done.stdout == "done\n", done
    done = run(
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


def test_a_page_that_the_program_made_read_only_itself_is_a_crash() -> None:
    script = """
with Arena(MIB) as arena:
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(arena.address), 4096, 1) == 0
    print("now", flush=True)
    arena.live[0] = 1
"""
    done = run(script)
    assert (done.returncode, done.stdout) == (-signal.SIGSEGV, "now\n"), done
