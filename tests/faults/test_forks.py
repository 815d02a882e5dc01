# SPDX-License-Identifier: GPL-2.0-or-later
"""fork, exec and _exit in the middle of a dump. A child has the memory privately, and not the dump:
it never hangs, and changes nothing of its parent's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aftermath import DEADLINE_S, expect_equal, host_unharmed, wait_for

from livedumpfs import open_dump
from livedumpfs.abi import Verdict
from livedumpfs.client import Client

FOLDER = Path(__file__).resolve().parent

PRELUDE = """
import ctypes, errno, gc, os, resource, signal, subprocess, sys, threading, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from aftermath import memory_file, expect_equal, unharmed, wait_for
from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import LivedumpError
from livedumpfs.machines import UnicornMachine
MIB = 1 << 20
place = Path(sys.argv[1])
def child(body, *, deadline=60):
    # How a child that runs `body` ends: its exit code, or minus the signal.
    pid = os.fork()
    if pid == 0:
        try:
            code = body()
        except SystemExit:
            raise
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            code = 99
        os._exit(code or 0)
    return wait(pid, deadline)
def wait(pid, deadline=60):
    end = time.monotonic() + deadline
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])
def refused(step):
    try:
        step()
    except LivedumpError as error:
        return error.errno == errno.ECHILD
    return False
"""


def run(script: str, place: Path) -> subprocess.CompletedProcess[str]:
    top = str(FOLDER.parents[1])
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + script, str(place)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": f"{top}:{FOLDER}"},
    )  # fmt: skip


def expect_done(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


@pytest.mark.parametrize(
    ("phase", "arming"),
    [("init", "swap"), ("start", "swap"), ("start", "mprotect"), ("sweep", "swap")],
)
def test_children_of_a_dump_under_way(tmp_path: Path, phase: str, arming: str) -> None:
    """Memory: read, and written for itself alone. Steps: refused. The dump: as if nothing."""
    done = run(
        f"""
SIZE = 8 * MIB
with Arena(SIZE) as arena, LiveDump(arena) as live, unharmed(live), memory_file(SIZE) as kept:
    arena.live[:] = 1
    settings = DumpSettings(granule=4096, arming={arming!r}, sweep_rate=2 * MIB, force=True)
    live.init(place / "dump", settings, reference=kept)
    if {phase!r} != "init": live.start()
    if {phase!r} == "sweep": live.sweep()
    def store():
        arena.live[: SIZE // 2] = 9
        return int(arena.live[0]) + int(arena.live[SIZE // 2]) + child(load)
    def load(): return int(arena.live[5 * 4096])
    def steps():
        answers = [refused(step) for step in (
            live.start, live.sweep, lambda: live.init(place / "other"), live.finish,
            lambda: live.read(0, 1), lambda: arena.discard(0, 4096), lambda: arena.writable(0, 1),
        )]
        live.release()
        live.close()
        return 0 if all(answers) and not (place / "other").exists() else 1
    assert child(load) == 1
    assert child(store) == 9 + 1 + 9, "its own stores, its parent's, and its child's view of them"
    assert arena.live[0] == 1 and arena.read(0, SIZE).count(1) == SIZE
    assert child(steps) == 0
    if {phase!r} == "init": live.start()
    if {phase!r} != "sweep": live.sweep()
    arena.live[::4096] = 2
    assert live.finish(300) == "consistent", live.failure
    live.release()
    expect_equal(place / "dump", kept, SIZE)
print("done")
""",
        tmp_path,
    )
    expect_done(done)


def test_workers_of_a_pool_read_arrays(tmp_path: Path) -> None:
    """multiprocessing by fork: what is there now, also what was stored since the fork."""
    done = run(
        """
import multiprocessing
arena = Arena(8 * MIB)
array = arena.array("f8", (1000,), name="x")
array[:] = 1
def work(i): return float(array[i])
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map_async(work, range(4)).get(60) == [1.0] * 4
    array[:] = 2
    assert pool.map_async(work, range(4)).get(60) == [2.0] * 4
    with LiveDump(arena) as live:
        live.init(None); live.start()
        array[:] = 3
        assert pool.map_async(work, range(4)).get(60) == [3.0] * 4
        assert live.read(0, 8) == bytes.fromhex("0000000000000040")
print("done")
""",
        tmp_path,
    )
    expect_done(done)


@pytest.mark.parametrize("why", ["clone", "addresses", "data"])
def test_a_child_without_the_memory_says_so(tmp_path: Path, why: str) -> None:
    """Bare clone(2) calls nobody in the child; and limits may leave no room for a view, or only for
    one to read."""
    done = run(
        f"""
SIZE = 256 * MIB
arena = Arena(SIZE)
arena.live[0] = 1
if {why!r} == "data":  # private memory that can be written
    resource.setrlimit(resource.RLIMIT_DATA, (SIZE // 2, -1))
    pid = os.fork()
elif {why!r} == "addresses":
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    # The child is without live and observer view: room for half of one.
    resource.setrlimit(resource.RLIMIT_AS, (mapped - 3 * SIZE // 2, -1))
    pid = os.fork()
else:
    pid = ctypes.CDLL(None).syscall(56, signal.SIGCHLD, 0, 0, 0, 0)  # x86-64
if pid == 0:
    if {why!r} == "data" and arena.live[0] == 1: arena.live[0] = 2
    elif {why!r} != "data": arena.live[0]
    os._exit(1)
assert wait(pid) == -signal.SIGSEGV
print("done")
""",
        tmp_path,
    )
    expect_done(done)
    assert done.stderr.count("no view of its own of its parent's arena") == 1, done.stderr


def test_a_child_that_leaves_by_the_door(tmp_path: Path) -> None:
    """sys.exit in a child runs the ends of `with`, destructors and atexit: of its parent's dump and
    of a running machine. It must end, and neither may notice."""
    done = run(
        """
with UnicornMachine(8 * MIB, 2) as machine, LiveDump(machine) as live, memory_file(8 * MIB) as kept:
    machine.wait_ready()
    live.init(place / "dump", DumpSettings(sweep_rate=4 * MIB), reference=kept)
    live.start(); live.sweep()
    pid = os.fork()
    if pid == 0:
        sys.exit(7)
    assert wait(pid) == 7
    assert live.finish(300) == "consistent", live.failure
    live.release()
    expect_equal(place / "dump", kept, 8 * MIB)
    assert live.save(place / "next") == "consistent"
print("done")
""",
        tmp_path,
    )
    expect_done(done)


def test_children_while_the_locks_are_busy(tmp_path: Path) -> None:
    """Forked at any moment of other threads' dumps, arenas that come and go, and stores."""
    done = run(
        """
stop = threading.Event()
with Arena(4 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    def dumps():
        while not stop.is_set():
            live.init(None); live.start()
            arena.live[::4096] += 1
            live.release()
    def arenas():
        while not stop.is_set():
            with Arena(MIB) as other: other.live[0] = 1
            del other
    threads = [threading.Thread(target=one) for one in (dumps, arenas)]
    for one in threads: one.start()
    def own_dump():
        # An arena of the child's own is dumped as any.
        with Arena(MIB) as own, LiveDump(own) as mine:
            own.live[:] = 3
            mine.init(None); mine.start()
            own.live[:] = 4
            good = mine.read(0, MIB).count(3) == MIB
        live.release()
        return 0 if good else 1
    try:
        codes = [child(own_dump) for _ in range(25)]
    finally:
        stop.set()
        for one in threads: one.join()
    assert codes == [0] * 25, codes
print("done")
""",
        tmp_path,
    )
    expect_done(done)


def test_programs_started_during_a_dump(tmp_path: Path) -> None:
    """exec: by fork and by vfork. They inherit no descriptor of ours."""
    done = run(
        """
with Arena(4 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    live.init(place / "dump", DumpSettings(sweep_rate=4 * MIB)); live.start(); live.sweep()
    look = "ls -l /proc/self/fd; grep -c livedumpfs-arena /proc/self/maps"
    for how in ({}, {"preexec_fn": lambda: None}):
        said = subprocess.run(
            ["sh", "-c", look], capture_output=True, text=True, timeout=300, close_fds=False, **how
        ).stdout
        assert said.endswith("\\n0\\n") and "memfd" not in said and "dump" not in said, said
    arena.live[::4096] = 2
    assert live.finish(300) == "consistent"
    live.release()
    with open_dump(place / "dump") as dump:
        assert dump.read_arena(0, 4 * MIB).count(1) == 4 * MIB
print("done")
""",
        tmp_path,
    )
    expect_done(done)


@pytest.mark.parametrize("step", ["init", "start", "sweep"])
def test_a_process_that_leaves_at_once(tmp_path: Path, step: str) -> None:
    """os._exit in the middle: no destructor runs. The target is incomplete, and the next process's
    dump goes over it."""
    done = run(
        f"""
arena = Arena(8 * MIB); live = LiveDump(arena)
arena.live[:] = 1
live.init(place / "dump", DumpSettings(sweep_rate=4 * MIB))
if {step!r} != "init": live.start()
if {step!r} == "sweep": live.sweep()
os._exit(5)
""",
        tmp_path,
    )
    assert done.returncode == 5, done
    with open_dump(tmp_path / "dump.incomplete") as dump:
        assert dump.verdict == "incomplete"
    expect_next(tmp_path)


def expect_next(place: Path) -> None:
    """Another process's dump goes over what the last one left."""
    done = run(
        """
with Arena(8 * MIB) as arena, LiveDump(arena) as live:
    arena.live[:] = 3
    assert live.save(place / "dump", DumpSettings(force=True)) == "consistent"
    with open_dump(place / "dump") as dump:
        assert dump.read_arena(0, 8 * MIB).count(3) == 8 * MIB
print("done")
""",
        place,
    )
    expect_done(done)


def test_exec_of_the_process_itself(tmp_path: Path) -> None:
    """Memory and threads go; the program that comes after it finds no signal blocked or ignored."""
    done = run(
        """
arena = Arena(8 * MIB); live = LiveDump(arena)
arena.live[:] = 1
live.init(place / "dump"); live.start()
os.execv("/bin/sh", ["sh", "-c", "grep -E '^Sig(Blk|Cgt)' /proc/self/status; kill -SEGV $$"])
""",
        tmp_path,
    )
    assert done.returncode == -signal.SIGSEGV, done
    assert "SigBlk:\t0000000000000000" in done.stdout, done
    with open_dump(tmp_path / "dump.incomplete") as dump:
        assert dump.verdict == "incomplete"
    expect_next(tmp_path)


def test_a_host_whose_threads_fork_and_exec_all_the_time(
    run_host: Callable[..., Any], tmp_path: Path
) -> None:
    """The process that serves the mount, with all its locks and threads, in the middle of dumps."""
    log = tmp_path / "forks"
    path = f"{FOLDER / 'forking'}:{FOLDER.parents[1]}"
    host = run_host(environment={"PYTHONPATH": path, "LIVEDUMP_FORKS": str(log)})

    def children() -> int:
        return log.read_bytes().count(b"\n")

    def forks_on() -> None:
        begun = children()
        wait_for(lambda: children() >= begun + 20, host.log.read_text)

    with host_unharmed(host), Client(host.device) as client:
        client.init(str(tmp_path / "dump"))
        forks_on()
        client.start()
        forks_on()
        client.sweep()
        forks_on()
        assert client.finish(DEADLINE_S).verdict is Verdict.CONSISTENT
        client.release()
        expect_equal(tmp_path / "dump", host.reference, host.size)
    assert "hangs" not in host.log.read_text()
