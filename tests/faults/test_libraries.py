# SPDX-License-Identifier: GPL-2.0-or-later
"""No library that is known to install SIGSEGV handlers needs more entries of ours than there are:
its dump stays consistent, and the table in docs/concurrency.md says what is measured here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from libraries import CASES

FOLDER = Path(__file__).resolve().parent
CONCURRENCY = FOLDER.parents[1] / "docs" / "concurrency.md"


def documented() -> dict[str, tuple[int, int]]:
    """Of each case: times that our handler was put back, and entries beside the first."""
    rows = re.findall(
        r"^\| ([^|]+?) +\| (\d+) +\| (\d+) +\|$", CONCURRENCY.read_text(), re.MULTILINE
    )
    return {name: (int(retaken), int(more)) for name, retaken, more in rows}


@pytest.mark.parametrize("case", CASES)
def test_a_library_and_a_dump(case: str, beside_handlers: Callable[..., Any]) -> None:
    done = beside_handlers(str(FOLDER / "libraries.py"), case)
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    assert found["says"] == "consistent"
    assert (found["retaken"], found["more"]) == documented()[case]
