# SPDX-License-Identifier: GPL-2.0-or-later
"""A board whose guest is hostile (hostile/), under AddressSanitizer,
UndefinedBehaviorSanitizer and ThreadSanitizer.

LIVEDUMP_BOARD_TURNS=N and LIVEDUMP_BOARD_SEEDS=N: a longer run, of N of the guest's deeds for each
of N seeds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from native.build_native import TOP, sources
from tests.fixtures.compilers import compiling
from tests.native.conftest import Build
from tests.native.test_sanitizers import ADDRESS, ENVIRONMENT, THREAD

TURNS = os.environ.get("LIVEDUMP_BOARD_TURNS", "20000")
SEEDS = int(os.environ.get("LIVEDUMP_BOARD_SEEDS", "2"))


@pytest.fixture(scope="module", params=[ADDRESS, THREAD], ids=["address", "thread"])
def hostile_board(request: pytest.FixtureRequest, building: Callable[..., Build]) -> Path:
    """The program, which is its own Unicorn: the board finds its functions by name."""
    with compiling("hostile_board"):
        build = building("board", flags=(*request.param, "-rdynamic"))
        parts = (TOP / name for name in sources("base", "vcpu", "board"))
        own = sorted(Path(__file__).with_name("hostile").glob("*.c"))
        made = build.objects_of(parts), build.objects_of(own, f"-I{TOP / 'native'}")
        return build.link("hostile_board", [*made[0], *made[1]])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("disk", ["", "read-only"])
def test_no_guest_breaks_its_host(
    hostile_board: Path, run_program: Callable[..., tuple[int, str]], disk: str
) -> None:
    for seed in range(1, SEEDS + 1):
        code, printed = run_program(hostile_board, str(seed), TURNS, *disk.split(), **ENVIRONMENT)
        assert code == 0, f"seed {seed}: {printed[-3000:]}"
        assert re.fullmatch(r"right: \d+ requests, .*\n", printed), f"seed {seed}: {printed}"
        print(f"seed {seed}: {printed}", end="")
