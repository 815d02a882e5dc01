# SPDX-License-Identifier: GPL-2.0-or-later
"""What the SIGSEGV handler may call, read from the objects that run in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
HANDLER = ("fault_inside", "protect", "granule", "ring", "event", "io")
"""Files with functions that run in the handler."""
OWNER_ONLY = {
    "ring": {"calloc", "free", "mmap", "munmap", "madvise"},
}
"""What a file needs for its functions that do not run in the handler (they are not [signal])."""
ALLOWED = {
    # async-signal-safe by POSIX.1-2017, 2.4.3
    "getpid", "memcpy", "pread", "pread64", "pwrite", "pwrite64", "sigaction", "sigismember",
    "sigpending",
    # plain system calls or vDSO, without state of libc's
    "clock_gettime", "mprotect", "sched_yield", "syscall", "__errno_location",
}  # fmt: skip


def undefined_symbols(name: str, directory: Path) -> set[str]:
    output = directory / f"{name}.o"
    command = ["gcc", "-std=gnu11", "-O2", "-fno-stack-protector", "-c", f"native/{name}.c"]
    subprocess.run([*command, "-o", str(output)], cwd=TOP, check=True, timeout=60)
    listing = subprocess.run(
        ["nm", "-u", str(output)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return set(re.findall(r"\bU (\S+)", listing))


@pytest.mark.parametrize("name", HANDLER)
def test_only_async_signal_safe_calls(name: str, tmp_path: Path) -> None:
    found = {s for s in undefined_symbols(name, tmp_path) if not s.startswith("ldfs_")}
    assert found <= ALLOWED | OWNER_ONLY.get(name, set())


def test_the_handler_calls_nothing_of_ours_outside_these_files(tmp_path: Path) -> None:
    """Each ldfs_ function that the handler's files call is defined in one of them, or is one of the
    few in dump.c, table.c and uffd.c that are marked [signal]."""
    ours: set[str] = set()
    for name in HANDLER:
        ours |= {s for s in undefined_symbols(name, tmp_path) if s.startswith("ldfs_")}
    text = "".join((TOP / "native" / f"{name}.c").read_text() for name in HANDLER)
    elsewhere = {s for s in ours if not re.search(rf"^[^\s#/].*\b{s}\(.*\)?$", text, re.MULTILINE)}
    marked = {"ldfs_fail", "ldfs_give_up", "ldfs_table_mark", "ldfs_uffd_unprotect"}
    data = {
        "ldfs_fault_slots",
        "ldfs_fault_slots_used",
        "ldfs_fault_previous",
        "ldfs_fault_chained",
        "ldfs_fault_thief",
        "ldfs_fault_thieves",
    }
    keeper = {"ldfs_thread_ended"}  # called by the keeper thread, which lives in ring.c
    assert elsewhere <= marked | data | keeper


def test_the_list_would_catch_a_call_of_malloc(tmp_path: Path) -> None:
    bad = tmp_path / "bad.c"
    bad.write_text("#include <stdlib.h>\nvoid *f(void);\nvoid *f(void) { return malloc(1); }\n")
    output = tmp_path / "bad.o"
    subprocess.run(["gcc", "-c", str(bad), "-o", str(output)], check=True, timeout=60)
    listing = subprocess.run(["nm", "-u", str(output)], capture_output=True, text=True, check=True)
    assert not set(re.findall(r"\bU (\S+)", listing.stdout)) <= ALLOWED
