# SPDX-License-Identifier: GPL-2.0-or-later
"""What the SIGSEGV handler may call: everything that can be reached from it, function by function
through all files of the core, read from the relocations of the compiled objects."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.program_files import program_file

RELIABILITY = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
ENTRY = "ldfs_fault_handler"
ALLOWED = {
    # async-signal-safe by POSIX.1-2017, 2.4.3
    "getpid", "memcpy", "memset", "pthread_self", "sigaction",
    # plain system calls or vDSO, without state of libc's
    "clock_gettime", "mprotect", "sched_yield", "syscall", "ioctl", "__errno_location",
}  # fmt: skip

Calls = dict[str, set[str]]


def calls_of(objects: list[Path]) -> Calls:
    """What each function refers to: other functions, and data. Each function lies in a section of
    its own; what has no name of its own (strings, jump tables) is left out."""
    calls: Calls = {}
    for path in objects:
        listing = subprocess.run(
            ["objdump", "-r", "-w", str(path)],
            capture_output=True, text=True, check=True, timeout=300,
        ).stdout  # fmt: skip
        names = subprocess.run(
            ["nm", str(path)], capture_output=True, text=True, check=True, timeout=300
        ).stdout
        # Also those that refer to nothing.
        for name in re.findall(r"^\S+ [tT] (\S+)$", names, re.MULTILINE):
            calls.setdefault(f"{path.stem}:{name}", set())
        function = ""
        for line in listing.splitlines():
            header = re.match(r"RELOCATION RECORDS FOR \[(\S+)\]", line)
            if header:
                text = re.match(r"\.text(?:\.unlikely|\.cold)?\.(\S+)", header[1])
                # Parts of one function that the compiler split off: f.part.0, f.cold.
                function = f"{path.stem}:{text[1]}" if text else ""
                calls.setdefault(function, set())
                continue
            target = re.search(r"R_X86_64_(?:PLT32|PC32|GOTPCREL\w*|32S?|64)\s+(\S+)", line)
            if function and target:
                calls[function].add(re.sub(r"[-+]0x[0-9a-f]+$", "", target[1]))
    return calls


def reached(calls: Calls) -> set[str]:
    """All names that can be reached from the handler and that no file of the core defines."""
    defined = {name.split(":")[1]: name for name in calls if name}
    outside: set[str] = set()
    seen: set[str] = set()
    left = [defined[ENTRY]]
    while left:
        function = left.pop()
        if function in seen:
            continue
        seen.add(function)
        file = function.split(":")[0]
        for target in calls[function]:
            name = re.sub(r"^\.text(?:\.unlikely|\.cold)?\.", "", target)
            if f"{file}:{name}" in calls:  # static functions first
                left.append(f"{file}:{name}")
            elif name in defined:
                left.append(defined[name])
            elif not name.startswith("."):
                outside.add(name)
    return outside


def data_of(objects: list[Path]) -> set[str]:
    """Names of the core's variables."""
    listing = subprocess.run(
        ["nm", *map(str, objects)], capture_output=True, text=True, check=True, timeout=300
    ).stdout
    return set(re.findall(r"^\S+ [bBdDrRC] (\S+)$", listing, re.MULTILINE))


BUILDS = [("gcc", "-O2")]
if os.environ.get("LIVEDUMP_SANITIZE"):  # `make sanitize`
    BUILDS += [("gcc", "-O0"), ("clang", "-O2"), ("clang", "-O0")]


@pytest.mark.parametrize(("compiler", "level"), BUILDS)
def test_the_handler_reaches_only_what_is_async_signal_safe(
    compiler: str, level: str, building: Callable[..., Any]
) -> None:
    flags = (level, "-ffunction-sections", "-fno-stack-protector", "-fno-pic")
    objects = building("signal", compiler=compiler, flags=flags).core()
    found = reached(calls_of(objects)) - data_of(objects)
    print(sorted(found))
    assert {"mprotect", "syscall"} <= found, "the walk does not get through the files"
    assert found <= ALLOWED
    # Which of these a compiler has in line is its own choice.
    assert found - {"__errno_location"} <= documented() <= ALLOWED


def documented() -> set[str]:
    """What docs/reliability.md says of it."""
    text = RELIABILITY.read_text()
    row = next(one for one in text.splitlines() if one.startswith("| What the handler reaches"))
    return set(re.findall(r"`(\w+)`", row.split(" | ")[1]))


def test_a_call_of_malloc_far_down_would_be_found(building: Callable[..., Any]) -> None:
    source = program_file(__file__, "deep_malloc.c")
    build = building("bad", flags=("-O2", "-ffunction-sections", "-fno-pic"))
    assert "malloc" in reached(calls_of([build.object_of(source)]))
