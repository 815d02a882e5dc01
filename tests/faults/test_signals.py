# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGSEGV and SIGBUS are shared: faults that are not ours, handlers put over ours, threads that
block them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from aftermath import expect_incomplete

from tests.fixtures import forks
from tests.fixtures.patience import patient_path
from tests.fixtures.program_files import program_command

FOLDER = Path(__file__).resolve().parent


BACKENDS = {"sigsegv": signal.SIGSEGV, "sigbus": signal.SIGBUS}
BOTH = pytest.mark.parametrize("backend", BACKENDS)


def run(
    program: str, *arguments: Path | str, backend: str = "sigsegv"
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONFAULTHANDLER"}
    environment["BACKEND"] = backend
    environment["PYTHONPATH"] = patient_path(FOLDER)
    return forks.run(
        program_command(__file__, program, *arguments),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )


@BOTH
def test_a_fault_that_is_not_ours_still_kills(backend: str) -> None:
    done = run("signals/a_fault_that_is_not_ours_still_kills.py", backend=backend)
    assert done.returncode == -BACKENDS[backend], done


@BOTH
def test_a_fault_that_is_not_ours_ends_in_pythons_own_traceback(backend: str) -> None:
    done = run("signals/a_fault_that_is_not_ours_ends_in_pythons_own_traceback.py", backend=backend)
    assert done.returncode == -BACKENDS[backend], done
    assert "Fatal Python error: " in done.stderr and "in crash" in done.stderr


@BOTH
def test_a_signal_that_was_sent_kills(backend: str) -> None:
    done = run("signals/a_signal_that_was_sent_kills.py", backend=backend)
    assert done.returncode == -BACKENDS[backend], done


@BOTH
def test_the_handler_leaves_with_the_last_arena(backend: str) -> None:
    done = run("signals/the_handler_leaves_with_the_last_arena.py", backend=backend)
    assert done.stdout == "done\n", done


@BOTH
def test_start_refuses_when_another_handler_took_sigsegv(backend: str) -> None:
    done = run("signals/start_refuses_when_another_handler_took_sigsegv.py", backend=backend)
    assert done.stdout.count(f"another {BACKENDS[backend].name} handler was installed after") == 2
    assert "Transport" not in done.stdout, done
    assert done.stdout.endswith("True True\n"), done


@BOTH
def test_faulthandler_enabled_during_a_dump_is_survived(backend: str) -> None:
    done = run("signals/faulthandler_enabled_during_a_dump_is_survived.py", backend=backend)
    assert done.returncode == 0, done
    assert done.stdout == "True 2 2\n", done


@BOTH
def test_start_refuses_a_thread_that_blocks_sigsegv(backend: str) -> None:
    done = run("signals/start_refuses_a_thread_that_blocks_sigsegv.py", backend=backend)
    assert done.stdout.count(f"a thread of this process blocks {BACKENDS[backend].name}") == 2, done
    assert "deadlock" not in done.stdout and done.stdout.endswith("True\n"), done


@BOTH
def test_start_takes_a_thread_of_an_allocator(backend: str) -> None:
    """pyarrow starts it, and so do pandas, xarray and Dask."""
    done = run("signals/start_takes_an_allocators_thread.py", backend=backend)
    assert done.returncode == 0 and done.stdout == "done\n", done


@BOTH
def test_two_arenas_at_once_and_errno_is_kept(backend: str) -> None:
    done = run("signals/two_arenas_at_once_and_errno_is_kept.py", backend=backend)
    assert done.stdout == "[True, True, True]\nTrue True\n", done


@BOTH
def test_a_handler_that_outlived_the_last_arena_makes_no_ring(backend: str) -> None:
    """faulthandler sits on top of ours when the last arena goes, and stays there: a new arena must
    not take it for the handler before ours, or a real crash would go round for ever."""
    done = run("signals/a_handler_that_outlived_the_last_arena_makes_no_ring.py", backend=backend)
    assert done.returncode == -BACKENDS[backend], done
    assert len(done.stderr) < 10_000


@BOTH
def test_a_writer_that_blocks_sigsegv_during_a_dump(tmp_path: Path, backend: str) -> None:
    """The kernel kills a process whose fault is blocked: no handler can save it. One that blocks
    it, and does not write, is harmless; the dump on the target is incomplete."""
    done = run("signals/blocks_sigsegv_for_a_while.py", backend=backend)
    assert done.returncode == 0 and done.stdout == "done\n", done
    done = run("signals/stores_with_sigsegv_blocked.py", tmp_path / "dump", backend=backend)
    assert done.returncode == -BACKENDS[backend], done
    expect_incomplete(tmp_path / "dump")


def test_a_page_that_the_program_made_read_only_itself_is_a_crash() -> None:
    done = run("signals/a_page_that_the_program_made_read_only.py")
    assert (done.returncode, done.stdout) == (-signal.SIGSEGV, "now\n"), done


@pytest.mark.parametrize("when", ["before", "armed"])
@pytest.mark.parametrize("backend", ["sigbus", "sigbus sigsegv"])
def test_a_sigbus_that_has_another_cause_is_a_crash(when: str, backend: str) -> None:
    """Nothing that we open makes it go away: the store must not fault for ever. Also where our
    handler is there for an earlier dump alone."""
    done = run("signals/no_memory_for_a_hole.py", when, *backend.split())
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "now\n"), done
