# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests that wait, whose fixtures take long to be taken down."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def made(request):
    made = HERE / f"made-{request.node.name}"
    made.touch()
    yield
    # Longer than what ends a process of xdist by itself, when it is told to end.
    subprocess.run(["sleep", "6"])
    made.unlink()
    (HERE / f"taken-down-{request.node.name}").touch()


@pytest.mark.parametrize("number", range(2))
def test_that_waits(made, number):
    time.sleep(600)
