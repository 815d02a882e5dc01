# SPDX-License-Identifier: GPL-2.0-or-later
"""The core, what runs machines and serves mounts, and the shim compile for arm64 without a
warning."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from native.build_native import CORE, SOURCES
from native.build_native import sources as sources_of
from tests.fixtures.compilers import compiling
from tests.native.conftest import Build

TOP = Path(__file__).resolve().parents[2]
SEAMS = {"base/copy.h", "base/relax.h", "base/checksum.c", "base/checksum_avx2.c", "fault/access.h"}
"""All that differs between processors; docs/architecture.md, "Processors"."""
OF_ONE = re.compile(r"__x86_64__|__aarch64__|__asm__|\basm\b|mmintrin|ia32|\bgregs\b")


def test_everything_compiles(cross: Build) -> None:
    with compiling("arm64"):
        objects = cross.objects_of(TOP / name for name in SOURCES)
    assert len(objects) == len(SOURCES)
    said = subprocess.run(
        ["aarch64-linux-gnu-objdump", "-f", str(objects[0])],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert "aarch64" in said


def test_the_shim_is_a_shared_object(
    cross: Build, tmp_path_factory: pytest.TempPathFactory
) -> None:
    objects = []
    with compiling("arm64"):
        for sources in (CORE, sources_of("shim")):  # files of both have the same names
            build = Build(tmp_path_factory.mktemp("shim"), cross.compiler, cross.flags)
            objects += build.objects_of(TOP / name for name in sources)
    made = Build(build.place, cross.compiler, (*cross.flags, "-shared")).link("shim.so", objects)
    names = subprocess.run(
        ["aarch64-linux-gnu-nm", "-D", "--defined-only", str(made)],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert {"fallocate", "madvise"} <= set(re.findall(r" T (\w+)$", names, re.MULTILINE))


def test_processors_differ_in_the_seams_alone() -> None:
    found = {
        path.relative_to(TOP / "native").as_posix()
        for path in sorted((TOP / "native").rglob("*.[ch]"))
        if OF_ONE.search(path.read_text())
    }
    assert found == SEAMS
