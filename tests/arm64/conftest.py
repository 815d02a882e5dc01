# SPDX-License-Identifier: GPL-2.0-or-later
"""The C core and its programs, built for arm64."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.arm64.arm64_guest import COMPILER, LONG, PROGRAMS, SYSROOT, fetch
from tests.native.conftest import Build


@pytest.fixture(scope="session")
def sysroot() -> Path:
    """Headers and libraries of Debian for arm64."""
    for program in PROGRAMS:
        if shutil.which(program) is None:
            pytest.fail(f"no {program} here; scripts/setup packages")
    fetch("build/sysroot/stamp")
    return SYSROOT


@pytest.fixture(scope="session")
def cross(sysroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The compiler, with the warnings of every build. The flags are those of the shim, so that the
    core is compiled once for all; the long mode optimises as releases do."""
    level = "-O2" if LONG else "-O1"
    flags = (level, f"--sysroot={sysroot}", "-fPIC", "-fvisibility=hidden")
    return Build(tmp_path_factory.mktemp("arm64"), compiler=COMPILER, flags=flags)
