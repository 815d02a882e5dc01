# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpSettings as a type checker sees it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import mypy

TOP = Path(__file__).resolve().parents[2]


def test_a_type_checker_refuses_what_there_is_not(tmp_path: Path) -> None:
    words = {
        "format": "zip", "policy": "hope", "arming": "wish", "backend": "ptrace",
        "compression": "bzip2", "table": "front", "at_limit": "wait", "pool": "all",
    }  # fmt: skip
    right = {"format": "kdump", "policy": "spill", "backend": ""}
    program = tmp_path / "program.py"
    lines = [f"DumpSettings({name}={value!r})" for name, value in (*right.items(), *words.items())]
    program.write_text("\n".join(["from livedumpfs import DumpSettings", *lines]))
    command = [sys.executable, "-m", mypy.__name__, "--strict", "--cache-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--follow-imports=silent", str(program)],
        cwd=TOP, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    refused = re.findall(r'program.py:(\d+): error: Argument "(\w+)"', done.stdout)
    assert [name for _, name in refused] == list(words), done.stdout + done.stderr
    assert int(refused[0][0]) == 2 + len(right)
