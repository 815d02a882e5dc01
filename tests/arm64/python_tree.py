# SPDX-License-Identifier: GPL-2.0-or-later
"""This tree as the arm64 guest gets it: its files, and the C core built for Debian 13's Python."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from native.build_native import CORE, SHIM_SOURCES, SOURCES, ffibuilder
from tests.arm64.arm64_guest import COMPILER, PYTHON, TOP
from tests.fixtures.compilers import compiling
from tests.native.conftest import Build

INCLUDE = PYTHON / "usr" / "include" / "python3.13"
GENERATED = ("-Wno-unused-parameter", "-Wno-missing-field-initializers")
"""As in native/build_native.py: of what cffi and Python's headers generate."""
SUFFIX = ".abi3.so"
"""cffi's module needs Python's stable interface alone."""


def lay_out(tree: Path, folder: Callable[[str], Path]) -> None:
    """The files that git knows or would take, the built-in guests, and the two built objects;
    `folder` makes a new one of that name."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP, capture_output=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    names = [name for name in listed.decode().split("\0") if name and (TOP / name).is_file()]
    guests = [p.relative_to(TOP).as_posix() for p in (TOP / "livedumpfs" / "guest").glob("*.elf")]
    for name in (*names, *guests):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / name, tree / name)
    with compiling("arm64-python"):
        shutil.copy(_native(folder), tree / "livedumpfs" / f"_native{SUFFIX}")
        shutil.copy(_shim(folder), tree / "livedumpfs" / f"_shim{SUFFIX}")


def _build(place: Path, *more: str) -> Build:
    flags = ("-O2", f"--sysroot={PYTHON}", "-fPIC", *more)
    return Build(place, compiler=COMPILER, flags=flags)


def _native(folder: Callable[[str], Path]) -> Path:
    build = _build(folder("native"))
    source = build.place / "_native.c"
    ffibuilder.emit_c_code(str(source))
    objects = build.objects_of(TOP / name for name in SOURCES)
    objects.append(build.object_of(source, f"-I{INCLUDE}", *GENERATED))
    return _build(build.place, "-shared").link("_native.so", objects)


def _shim(folder: Callable[[str], Path]) -> Path:
    core = _build(folder("shim-core"), "-fvisibility=hidden")
    shim = _build(folder("shim"), "-fvisibility=hidden")  # files of both have the same names
    objects = core.objects_of(TOP / name for name in CORE)
    objects += shim.objects_of(TOP / name for name in SHIM_SOURCES if name not in CORE)
    return _build(shim.place, "-shared").link("_shim.so", objects)
