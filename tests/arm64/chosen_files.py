# SPDX-License-Identifier: GPL-2.0-or-later
"""Which test files run in the arm64 guest: by what they import, and never by how they ended.

An emulated processor takes some twenty times as long, so these are the files that reach what an
arm64 kernel or processor could break, and that need nothing that the guest has not."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
ROOMS = {
    # What lays out bytes, and what calls the C core or the kernel.
    "tests/unit": {
        "_native", "abi", "control", "core", "dump", "formats", "mount", "page_map",
        "signal_event", "targets",
    },
    # What drives the C core in its own process. Tests of commands alone take too long.
    "tests/integration": {"core", "dump"},
    # What tracks changes of its own memory.
    "tests/stores": {"targets"},
}  # fmt: skip
"""By folder: a file runs in the guest when it imports one of these parts of livedumpfs."""
PACKAGES = TOP / "guest" / "arm64" / "build" / "python" / "site"
OWN = {"livedumpfs", "tests", "native"}
SEARCHED = ("tests/faults", "tests/fixtures/patient", "tests/soak")
"""Of pyproject.toml's pythonpath: bench and scripts are for the x86-64 computer."""


def chosen() -> list[str]:
    """The files, as pytest takes them."""
    return [
        path.relative_to(TOP).as_posix()
        for folder in ROOMS
        for path in sorted((TOP / folder).glob("test_*.py"))
        if not why_not(path)
    ]


def why_not(path: Path) -> str:
    """Why the guest leaves this file out; "" if it does not."""
    imported = set(_imports(path))
    if missing := sorted(filter(None, map(_missing, imported))):
        return f"{missing[0]} is not in the guest"
    rooms = {name.split(".")[1] for name in imported if name.startswith("livedumpfs.")}
    if not rooms & ROOMS[path.parent.relative_to(TOP).as_posix()]:
        return "it imports nothing that depends on the processor"
    return ""


@cache
def _missing(module: str) -> str:
    """The name of a package that the guest lacks."""
    name = module.partition(".")[0]
    known = name in sys.stdlib_module_names or name in OWN or name.startswith("_")
    packed = any(PACKAGES.glob(f"{name}*"))
    own = any((TOP / folder / f"{name}.py").exists() for folder in SEARCHED)
    return "" if known or packed or own else name


def _imports(path: Path) -> Iterator[str]:
    """Modules of a file, and `PACKAGE.NAME` of what is imported from a package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
