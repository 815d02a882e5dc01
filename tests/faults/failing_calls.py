# SPDX-License-Identifier: GPL-2.0-or-later
"""The library of failing_calls.c, for LD_PRELOAD."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


def build_failing_calls(folder: Path) -> Path:
    """CalledProcessError: it cannot be built."""
    library = folder / "failing_calls.so"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(SOURCE), "-ldl"], check=True, timeout=300)
    return library
