# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU that is there: `make test-qemus` runs the same tests with others."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Sequence

import pytest

QEMU = "qemu-system-x86_64"
DEBIAN_12 = (7, 2)
DEADLINE_S = 300.0


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [QEMU, *words],
        input="", capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip


@functools.cache
def version() -> tuple[int, int]:
    """Of the QEMU that is there."""
    found = re.search(r"version (\d+)\.(\d+)", _run("-version").stdout)
    assert found
    return int(found[1]), int(found[2])


@functools.cache
def as_nobody() -> tuple[str, ...]:
    """Options with which it gives its rights up."""
    old = re.search(r"^-runas\b", _run("-help").stdout, re.MULTILINE)
    return ("-runas", "nobody") if old else ("-run-with", "user=nobody")


def skip_what_it_refuses(words: Sequence[str]) -> None:
    """Newer ones have no old machine types, and take fewer spellings of a size. What Debian 12's
    accepts is never skipped there."""
    if version() > DEBIAN_12:
        # An option that is wrong ends it before the one that is unknown here does.
        said = _run(*words, "-display", "none", "-S", "-device", "livedump-none").stderr
        if "livedump-none" not in said:
            pytest.skip(said.strip())
