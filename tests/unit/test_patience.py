# SPDX-License-Identifier: GPL-2.0-or-later
"""Deadlines that are not given: what users get, and what these tests and their programs get."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from patient import DEADLINES_S, HOSTS

from livedumpfs import settings
from livedumpfs.dump import DumpSettings
from livedumpfs.hosts import registry
from livedumpfs.machines import UnicornMachine, emulated
from livedumpfs.rights import helper
from tests.fixtures.program_files import program_command

TOP = Path(__file__).resolve().parents[2]


def told(path: str) -> list[float]:
    done = subprocess.run(
        program_command(__file__, "deadlines.py"), env={**os.environ, "PYTHONPATH": path},
        text=True, capture_output=True, timeout=300, check=True,
    )  # fmt: skip
    return [float(word) for word in done.stdout.split()]


def test_users_have_short_ones() -> None:
    assert told(str(TOP)) == [1, 10, 30, 10, 10, 1, 5, 10, 2.5]


def test_programs_of_tests_have_long_ones() -> None:
    *steps, part_of_a_step = told(os.environ["PYTHONPATH"])
    assert min(steps) >= 60 and part_of_a_step == 15
    assert DumpSettings().quiesce_deadline == DEADLINES_S[settings.__name__]["QUIESCE_DEADLINE"]


def test_they_are_read_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("QUIESCE", "STALL", "INIT")):
        monkeypatch.setattr(settings, f"{name}_DEADLINE", 7.0 + number)
    made = DumpSettings()
    assert (made.quiesce_deadline, made.stall_deadline, made.init_deadline) == (7, 8, 9)
    monkeypatch.setattr(helper, "TIMEOUT", 10.5)
    one = helper.Helper(os.getpid(), os.geteuid(), os.getegid())
    one.end()
    assert one.timeout == 10.5
    asked: list[float] = []
    monkeypatch.setattr(emulated, "_deadline", lambda seconds: asked.append(seconds) or 1 << 62)
    monkeypatch.setattr(emulated, "QUIESCE_SECONDS", 3.0)
    monkeypatch.setattr(emulated, "STOP_SECONDS", 4.0)
    with UnicornMachine("16MiB", 1) as machine:
        machine.quiesce()
        machine.resume()
        machine.registers()
        machine.stop()
        assert asked == [3, 3, 4]
        machine.close()


def test_a_command_finds_no_host_of_others() -> None:
    """In /run/livedumpfs may be those of the computer, and of other tests."""
    tell = "from livedumpfs.hosts import registry; print(registry.SYSTEM_DIRECTORY)"
    done = subprocess.run(
        [sys.executable, "-c", tell], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout == f"{os.environ[HOSTS]}\n" == f"{registry.SYSTEM_DIRECTORY}\n"
