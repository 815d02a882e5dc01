# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs of tests/native/ under AddressSanitizer and UndefinedBehaviorSanitizer on arm64: no
report at all. Debian's ThreadSanitizer for that processor is not tried: what it cannot run is in
tests/native/test_sanitizers.py, and an emulated processor orders loads and stores as x86-64 does.

Of make test-arm64 alone (LIVEDUMP_ARM64=1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.arm64.arm64_guest import COMPILER, LONG, Answer, fetch, run_in_guest
from tests.fixtures.compilers import compiling
from tests.native.conftest import Build
from tests.native.test_sanitizers import ADDRESS, EVERYWHERE, OPTIONS, WITH_SIGNALS

pytestmark = [
    pytest.mark.together,
    pytest.mark.skipif(not LONG, reason="make test-arm64"),
]

DEADLINE_S = 7200
INSIDE = ("-static-libasan", "-static-libubsan")
"""The guest has no libraries of sanitizers."""
COMMANDS = [*EVERYWHERE, *WITH_SIGNALS]


@pytest.mark.timeout(DEADLINE_S + 900)
def test_no_report_on_arm64(sysroot: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    fetch("build/root.cpio", "build/kernel-4k/vmlinuz")
    flags = (*ADDRESS, f"--sysroot={sysroot}", *INSIDE)
    with compiling("arm64-sanitized"):
        build = Build(tmp_path_factory.mktemp("sanitized"), compiler=COMPILER, flags=flags)
        programs = build.programs({command.split()[0] for command, _ in COMMANDS})
    answers = run_in_guest(
        [f"ASAN_OPTIONS={OPTIONS} /programs/{command}" for command, _ in COMMANDS],
        programs.values(),
        tmp_path_factory.mktemp("guest"),
        memory="4G",
        deadline_s=DEADLINE_S,
    )
    for (command, expected), found in zip(COMMANDS, answers, strict=True):
        assert found == Answer(0, expected.removesuffix("\n")), command
