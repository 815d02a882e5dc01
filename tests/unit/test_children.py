# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers of tests end with them, and hold nothing of theirs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path

from livedumpfs.proc import proc_text
from tests.fixtures.program_files import program_command

DEADLINE_S = 60


def is_there(pid: str) -> bool:
    try:
        return proc_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_server_of_tests_that_were_killed_ends(tmp_path: Path) -> None:
    command = program_command(__file__, "serves.py", tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout
        server = tests.stdout.readline().strip()
        try:
            assert is_there(server)
            held = [os.readlink(one) for one in Path(f"/proc/{server}/fd").iterdir()]
            assert not any(one.startswith(str(tmp_path)) for one in held), held
        finally:
            tests.kill()
    deadline = time.monotonic() + DEADLINE_S
    while is_there(server):
        assert time.monotonic() < deadline, "it outlives the tests"
        time.sleep(0.01)
    with open(tmp_path / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
