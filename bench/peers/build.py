# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the C program that compares the ways (main.c) when its sources are newer, and runs it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final

from native.build_native import CORE

HERE: Final = Path(__file__).resolve().parent
TOP: Final = HERE.parents[1]
NATIVE: Final = TOP / "native"
OBJECTS: Final = TOP / "build" / "bench" / "peers.o"
PROGRAM: Final = TOP / "build" / "bench" / "peers"
LIBRARIES: Final = ("-lz", "-lzstd", "-llzo2", "-lsnappy", "-pthread")
STATIC: Final = TOP / "build" / "bench" / "peers-static"
STATIC_LIBRARIES: Final = ("-static", *LIBRARIES, "-lstdc++", "-lm")
DEADLINE_S: Final = 600.0

WAYS: Final = ("ours", "fork", "stop", "mprotect", "uffd", "uffd-sigbus")
PATTERNS: Final = {"hot": 0, "uniform": 1, "sequential": 2}
PAGES: Final = {"small": 0, "thp": 1, "2M": 2}
POLICIES: Final = {"block": 0, "fail": 1, "spill": 2}


class PeerError(Exception):
    """A way failed; with its own message."""


def backends() -> dict[str, int]:
    """The backends that this core has, by name, with their numbers; without `auto`, which leaves
    the choice to Python."""
    text = (NATIVE / "ldfs.h").read_text()
    found = re.findall(r"\bLDFS_BACKEND_(\w+) = (\d+)", text)
    return {name.lower(): int(number) for name, number in found if name != "AUTO"}


def pool_grows() -> bool:
    """Whether this core has a pool that grows by itself."""
    return re.search(r"^\s*uint32_t pool_auto;", (NATIVE / "ldfs.h").read_text(), re.M) is not None


def _defines() -> list[str]:
    pairs = ", ".join(f'{{ "{name}", {number} }}' for name, number in backends().items())
    return [f"-DCORE_BACKENDS={pairs}", *(["-DPOOL_AUTO"] if pool_grows() else [])]


def _objects() -> Path:
    """All sources in one object file, which both programs are linked from."""
    core = [TOP / name for name in CORE]
    sources = [*HERE.glob("*.c"), *core]
    newest = max(p.stat().st_mtime for p in [*sources, *HERE.glob("*.h"), *NATIVE.rglob("*.h")])
    if not OBJECTS.exists() or OBJECTS.stat().st_mtime < newest:
        OBJECTS.parent.mkdir(parents=True, exist_ok=True)
        command = ["gcc", "-O2", "-std=gnu11", "-Wall", "-Wextra", f"-I{NATIVE}", *_defines()]
        subprocess.run([*command, "-r", "-o", OBJECTS, *sorted(sources)], check=True)
    return OBJECTS


def _built(program: Path, libraries: tuple[str, ...]) -> Path:
    objects = _objects()
    if not program.exists() or program.stat().st_mtime < objects.stat().st_mtime:
        subprocess.run(["gcc", "-o", program, objects, *libraries], check=True)
    return program


@cache
def peers() -> Path:
    """Path of the program; built if needed. CalledProcessError: it cannot be built."""
    return _built(PROGRAM, LIBRARIES)


@cache
def static_peers() -> Path:
    """The same program for a computer that has none of its libraries."""
    return _built(STATIC, STATIC_LIBRARIES)


def _call(*words: str) -> dict[str, Any]:
    return _parsed([str(peers()), *words])


def _parsed(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if done.returncode:
        raise PeerError(f"{shlex.join(command)}: {done.stderr.strip() or done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _words(options: dict[str, Any]) -> list[str]:
    return [
        f"{key}={int(value) if isinstance(value, bool) else value}"
        for key, value in options.items()
    ]


def run(way: str, **options: Any) -> dict[str, Any]:
    """Dumps in one way, under writers. Keys as in main.c; `target`: a path. PeerError."""
    return _call("run", way, *_words(options))


def touch(way: str, **options: Any) -> dict[str, Any]:
    """The cost of the first store to a page, without a target. PeerError."""
    return _call("touch", way, *_words(options))


def granules(way: str, **options: Any) -> dict[str, Any]:
    """The wall time of a granule that `writers` threads open at once, without a target.
    PeerError."""
    return _call("granules", way, *_words(options))


def huge(way: str, **options: Any) -> dict[str, Any]:
    """Dumps of memory of huge pages (`pages`: PAGES). PeerError."""
    return _call("huge", way, *_words(options))


def floor() -> dict[str, Any]:
    """The least cost of a page fault that is handled in user space, in ns. PeerError."""
    return _call("floor")


def many(**options: Any) -> dict[str, Any]:
    """All cells of many.c within `budget` seconds, run by the static program. PeerError."""
    return _parsed([str(static_peers()), "many", *_words(options)])
