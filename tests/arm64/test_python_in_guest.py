# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python tests that need no QEMU, in the Debian guest on arm64: Debian 13's Python, our pinned
packages for that processor, the C core built across, and real mounts. chosen_files.py says which.

One boot for each size of pages, of make test-arm64 alone (LIVEDUMP_ARM64=1)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.arm64.arm64_guest import LONG, PYTHON_ROOT, Pages, fetch, run_in_guest
from tests.arm64.chosen_files import chosen
from tests.arm64.python_tree import lay_out

pytestmark = [
    pytest.mark.together,
    pytest.mark.skipif(not LONG, reason="some 20 minutes: make test-arm64"),
]

DEADLINE_S = 7200
TEST_S = 1800
"""Of one test: twice that of pyproject.toml."""
FLOOR: dict[Pages, int] = {"4k": 2300, "16k": 5, "64k": 5}
"""Tests that pass, by the kernel's pages. Fewer: the choice, or the guest, has shrunk."""
LARGE = ("tests/stores/test_changes.py",)
"""What runs where pages are larger than 4 KiB: increments. Other files have dumps with granules of
4 KiB, which such a kernel cannot protect."""
REPORT = "/tmp/report.xml"
CHOSEN = os.environ.get("LIVEDUMP_ARM64_FILES", "")
"""Files to run in place of those, separated by spaces."""


@dataclass
class Outcome:
    pages: Pages
    printed: str
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """The reason, by test."""

    def __str__(self) -> str:
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def _files(pages: Pages) -> list[str]:
    return CHOSEN.split() or (chosen() if pages == "4k" else list(LARGE))


def _outcome(pages: Pages, report: str, printed: str) -> Outcome:
    """Of pytest's JUnit file."""
    outcome = Outcome(pages, printed)
    for case in ElementTree.fromstring(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed.append(name)
        elif (skipped := case.find("skipped")) is not None:
            outcome.skipped[name] = skipped.get("message", "")
        else:
            outcome.passed += 1
    return outcome


@pytest.fixture(scope="module", params=FLOOR)
def outcome(
    request: pytest.FixtureRequest, sysroot: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcome]:
    pages: Pages = request.param
    fetch("build/python.cpio", f"build/kernel-{pages}/vmlinuz")
    place = tmp_path_factory.mktemp("guest")
    lay_out(place / "tree", tmp_path_factory.mktemp)
    python = "LIVEDUMP_PYTHON=/usr/bin/python3 PYTHONPATH=/tree PYTHONUNBUFFERED=1 python3"
    answers = run_in_guest(
        [
            "ldconfig",
            f"cd /tree && {python} -m pytest -v --color=no --tb=short --durations=10 -n 2"
            " -o tmp_path_retention_policy=failed -p no:cacheprovider"
            f" --timeout={TEST_S} --max-worker-restart=0"
            f" --junitxml={REPORT} {' '.join(_files(pages))}",
            f"cat {REPORT}",
            "free -m; df -m /tmp; dmesg | tail -n 40",
        ],
        [],
        place,
        root=PYTHON_ROOT,
        pages=pages,
        memory="8G",
        deadline_s=DEADLINE_S,
    )
    printed = answers[1].printed
    assert answers[2].printed.strip(), f"pytest ended without a report: {printed[-10000:]}"
    found = _outcome(pages, answers[2].printed, printed)
    print(f"\nin the arm64 guest, pages of {pages}: {found}")
    yield found


@pytest.mark.timeout(DEADLINE_S + 1800)
def test_none_fails(outcome: Outcome) -> None:
    assert not outcome.failed, f"{outcome}\n{outcome.printed}"


@pytest.mark.timeout(DEADLINE_S + 1800)
def test_enough_pass(outcome: Outcome) -> None:
    assert outcome.passed >= FLOOR[outcome.pages], f"{outcome}\n{outcome.skipped}"
