# SPDX-License-Identifier: GPL-2.0-or-later
"""Chromium without a window, for the pictures of docs/ and for tests: the system's own, driven by
Playwright. `scripts/setup browser DIR` gets both."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_NO_NETWORK: Final = "--host-resolver-rules=MAP * ~NOTFOUND"
SIZES: Final = {"wide": (1100, 900), "narrow": (360, 740)}
"""Width and height of a screen, in points."""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright, until the end of the `with`. SystemExit: there is none here."""
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("there is no chromium here; `scripts/setup browser DIR` installs it")
    from playwright.sync_api import sync_playwright

    # Root's browser has no sandbox; the pages are our own, and have no script.
    arguments = [_NO_NETWORK, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Any, page: Path, scheme: str, size: str = "wide") -> Iterator[Any]:
    """The page in a window of its own. `scheme`: "light" or "dark"; `size`: of SIZES."""
    width, height = SIZES[size]
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": height}, offline=True
    )
    try:
        found = context.new_page()
        found.goto(page.resolve().as_uri())
        yield found
    finally:
        context.close()
