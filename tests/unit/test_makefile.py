# SPDX-License-Identifier: GPL-2.0-or-later
"""A target of the Makefile works in a tree where nothing is built yet."""

from __future__ import annotations

import re
from pathlib import Path

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"


def test_targets_that_run_tests_build_what_these_need() -> None:
    """All tests import the package, and with it the C core."""
    rules = re.findall(r"^([a-z-]+):(.*)\n((?:\t.*\n)+)", MAKEFILE.read_text(), re.MULTILINE)
    runs = {
        name: needed.split()
        for name, needed, recipe in rules
        if re.search(r"\$\(parallel\)|\$\(pytest\)|-m pytest|tests/soak|bench/", recipe)
    }
    assert {"test", "model", "exact", "soak", "bench"} <= runs.keys()
    assert not {name for name, needed in runs.items() if "setup" not in needed}
