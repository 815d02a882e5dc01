# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of which one is alone: what each began beside is in the names of files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# TOGETHER


def began(name):
    (HERE / f"{name}-{os.environ['PYTEST_XDIST_WORKER']}").touch()


@pytest.mark.alone
def test_alone():
    began("alone")


@pytest.mark.parametrize("number", range(3))
def test_beside_others(number):
    began("beside")
    end = time.monotonic() + 0.5  # time enough to be wrong in
    while time.monotonic() < end:
        assert not list(HERE.glob("alone-*")) or alone_is_over()
        time.sleep(0.01)


def alone_is_over():
    return (HERE / "over").exists()


@pytest.fixture(autouse=True)
def over(request):
    yield
    if request.node.get_closest_marker("alone"):
        (HERE / "over").touch()
