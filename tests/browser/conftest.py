# SPDX-License-Identifier: GPL-2.0-or-later
"""Chromium, without a window: `make test-browser` installs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from headless import chromium

WANTED = os.environ.get("LIVEDUMP_BROWSER")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They are long, and need what `make test` does not install."""
    why = pytest.mark.skip(reason="`make test-browser`; test_report_pages.py")
    for one in items:
        if not WANTED and "tests/browser/" in one.nodeid:
            one.add_marker(why)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found
