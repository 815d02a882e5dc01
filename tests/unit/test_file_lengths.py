# SPDX-License-Identifier: GPL-2.0-or-later
"""No source file is longer than one can read: one noun a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
LINES_MOST = 400
HELD = ("livedumpfs", "native")
"""Folders whose files are held to it."""
ENDINGS = (".c", ".h", ".py")
LONGER = {"native/ldfs.h": "the interface that cffi reads is one text"}
"""And why."""


def lengths(*folders: str) -> dict[str, int]:
    """Lines of the source files there, by name: those that git has, and new ones."""
    found = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z", "--", *folders],
        cwd=TOP, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    if found.returncode:
        pytest.skip("the files of the project are known to git alone")
    names = [name for name in found.stdout.decode().split("\0") if name.endswith(ENDINGS)]
    return {
        name: len((TOP / name).read_bytes().splitlines()) for name in names if (TOP / name).exists()
    }


def test_no_file_is_long() -> None:
    found = lengths(*HELD)
    assert all(any(name.startswith(f"{folder}/") for name in found) for folder in HELD)
    long = {name: lines for name, lines in found.items() if lines > LINES_MOST}
    assert {name for name in long if name not in LONGER} == set(), long


def test_each_exception_is_one() -> None:
    found = lengths(*HELD)
    assert {name for name in LONGER if found.get(name, 0) <= LINES_MOST} == set()
