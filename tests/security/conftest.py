# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that act as users who exist nowhere."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import forks
from tests.fixtures.patience import patient_path

DEADLINE_S = 300.0
PROGRAMS = Path(__file__).resolve().parent / "programs"

IMPORTS = (ast.Import, ast.ImportFrom)
RunAs = Callable[..., str]


def as_user(program: Path, user: int, groups: tuple[int, ...], umask: int) -> str:
    """Python code that imports as root, and is that user for the rest of a program: another user
    may not be allowed to start this Python, or to read its modules."""
    lines = program.read_text().splitlines(keepends=True)
    imports = [one for one in ast.parse("".join(lines)).body if isinstance(one, IMPORTS)]
    end = imports[-1].end_lineno
    change = f"from become import become\nbecome({user}, {list(groups)}, {umask})\n"
    return "".join((*lines[:end], change, *lines[end:]))


@pytest.fixture
def run_as() -> RunAs:
    """run_as(user, name, *args, groups=(), umask=0o22, **of subprocess.run) -> what the file of
    programs/ with that name printed that ran as that user, whose group has the same number."""
    if os.geteuid() != 0:
        pytest.skip("acts as other users: needs root")

    def run(
        user: int, name: str, *args: object, groups: tuple[int, ...] = (), umask: int = 0o22,
        **options: Any,
    ) -> str:  # fmt: skip
        program = as_user(PROGRAMS / name, user, groups, umask)
        done = forks.run(
            [sys.executable, "-c", program, *map(str, args)], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
            env={**os.environ, "PYTHONPATH": patient_path(PROGRAMS)}, **options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
