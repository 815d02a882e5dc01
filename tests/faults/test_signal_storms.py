# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that arrive while memory is armed, and whose handlers store to it themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.fixtures.program_files import program_file

Done = CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture(params=["sigsegv", "sigbus"])
def run(request: pytest.FixtureRequest, beside_handlers: Callable[..., Done]) -> Run:
    """run(name, *arguments): a program of programs/storms/, which dumps by that backend."""

    def run(name: str, *arguments: str | os.PathLike[str]) -> Done:
        program = program_file(__file__, f"storms/{name}.py")
        return beside_handlers(str(program), *map(os.fspath, arguments), backend=request.param)

    return run


def expect_done(done: Done) -> None:
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


@pytest.mark.parametrize("arming", ["swap", "mprotect"])
def test_a_storm_of_signals_in_c(run: Run, tmp_path: Path, arming: str) -> None:
    """Their handler stores to armed memory itself, and interrupts writers, INIT and RELEASE."""
    expect_done(run("signals_in_c", tmp_path, arming))


def test_a_storm_of_signals_in_python(run: Run, tmp_path: Path) -> None:
    """Python's handlers store to armed memory, all over it, and so does what they interrupt."""
    expect_done(run("signals_in_python", tmp_path / "dump"))


def test_a_store_of_a_signal_that_comes_under_another_handler(run: Run) -> None:
    """It meets the granule that its own thread is copying: that must be over first."""
    expect_done(run("store_under_another_handler"))


def test_resume_stores_under_a_handler_that_came_while_the_machine_stood(run: Run) -> None:
    """It returns, so that the store faults again and again: the guard must be awake by then."""
    expect_done(run("handler_that_came_in_the_pause"))
