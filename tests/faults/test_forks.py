# SPDX-License-Identifier: GPL-2.0-or-later
"""fork, exec and _exit in the middle of a dump. A child has the memory privately, and not the dump:
it never hangs, and changes nothing of its parent's."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aftermath import DEADLINE_S, expect_equal, expect_incomplete, host_unharmed, wait_for

from livedumpfs.abi import Verdict
from livedumpfs.client import Client
from tests.fixtures import forks
from tests.fixtures.patience import patient_path
from tests.fixtures.program_files import program_command

FOLDER = Path(__file__).resolve().parent


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return forks.run(
        program_command(__file__, program, *arguments),
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": patient_path(FOLDER)},
    )  # fmt: skip


def expect_done(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


@pytest.mark.parametrize(
    ("phase", "arming"),
    [("init", "swap"), ("start", "swap"), ("start", "mprotect"), ("sweep", "swap")],
)
def test_children_of_a_dump_under_way(tmp_path: Path, phase: str, arming: str) -> None:
    """Memory: read, and written for itself alone. Steps: refused. The dump: as if nothing."""
    done = run("forks/children_of_a_dump_under_way.py", tmp_path, arming, phase)
    expect_done(done)


def test_workers_of_a_pool_read_arrays(tmp_path: Path) -> None:
    """multiprocessing by fork: what is there now, also what was stored since the fork."""
    done = run("forks/workers_of_a_pool_read_arrays.py", tmp_path)
    expect_done(done)


@pytest.mark.parametrize("why", ["clone", "addresses", "data"])
def test_a_child_without_the_memory_says_so(tmp_path: Path, why: str) -> None:
    """Bare clone(2) calls no fork handler in the child; and limits may leave no room for a view, or
    only for one to read."""
    done = run("forks/a_child_without_the_memory_says_so.py", tmp_path, why)
    expect_done(done)
    assert done.stderr.count("no view of its own of its parent's arena") == 1, done.stderr


def test_a_child_that_leaves_by_the_door(tmp_path: Path) -> None:
    """sys.exit in a child runs the ends of `with`, destructors and atexit: of its parent's dump and
    of a running machine. It must end, and neither may notice."""
    done = run("forks/a_child_that_leaves_by_the_door.py", tmp_path)
    expect_done(done)


def test_children_while_the_locks_are_busy(tmp_path: Path) -> None:
    """Forked at any moment of other threads' dumps, arenas that come and go, and stores."""
    done = run("forks/children_while_the_locks_are_busy.py", tmp_path)
    expect_done(done)


def test_a_child_looks_at_a_dump_while_another_thread_does(tmp_path: Path) -> None:
    """Forked with that thread's lock taken, which no thread in the child will ever give back."""
    done = run("forks/a_child_looks_at_a_dump_while_another_thread_does.py", tmp_path)
    expect_done(done)


def test_programs_started_during_a_dump(tmp_path: Path) -> None:
    """exec: by fork and by vfork. They inherit no descriptor of ours."""
    done = run("forks/programs_started_during_a_dump.py", tmp_path)
    expect_done(done)


@pytest.mark.parametrize("step", ["init", "start", "sweep"])
def test_a_process_that_leaves_at_once(tmp_path: Path, step: str) -> None:
    """os._exit in the middle: no destructor runs. The target is incomplete, and the next process's
    dump goes over it."""
    done = run("forks/a_process_that_leaves_at_once.py", tmp_path, step)
    assert done.returncode == 5, done
    expect_incomplete(tmp_path / "dump")
    expect_next(tmp_path)


def expect_next(place: Path) -> None:
    """Another process's dump goes over what the last one left."""
    done = run("forks/expect_next.py", place)
    expect_done(done)


def test_exec_of_the_process_itself(tmp_path: Path) -> None:
    """Memory and threads go; the program that comes after it finds no signal blocked or ignored."""
    done = run("forks/exec_of_the_process_itself.py", tmp_path)
    assert done.returncode == -signal.SIGSEGV, done
    assert "SigBlk:\t0000000000000000" in done.stdout, done
    expect_incomplete(tmp_path / "dump")
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
