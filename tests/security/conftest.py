# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that act as users who exist nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
DEADLINE_S = 300.0
BECOME = """
import ctypes, errno, fcntl, json, mmap, os, signal, sys, threading, time
os.umask({umask})
os.setgroups({groups})
os.setresgid({user}, {user}, {user})
os.setresuid({user}, {user}, {user})
"""
"""By the program itself: another user may not be allowed to start this Python."""

RunAs = Callable[..., str]


@pytest.fixture
def run_as() -> RunAs:
    """run_as(user, code, *args, groups=(), umask=0o22, **of subprocess.run) -> what Python code
    printed that ran as that user, whose group has the same number. Imports are done already."""
    if os.geteuid() != 0:
        pytest.skip("acts as other users: needs root")

    def run(
        user: int, code: str, *args: object, groups: tuple[int, ...] = (), umask: int = 0o22,
        imports: str = "", **options: Any,
    ) -> str:  # fmt: skip
        program = imports + BECOME.format(user=user, groups=list(groups), umask=umask) + code
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, args)], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
            env={**os.environ, "PYTHONPATH": str(TOP)}, **options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
