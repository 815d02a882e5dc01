# SPDX-License-Identifier: GPL-2.0-or-later
"""C programs against the C core itself, without Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
MACHINE_FILES = {"console.c", "vcpu_unicorn.c"}


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core as a static library."""
    place = tmp_path_factory.mktemp("core")
    sources = [p for p in (TOP / "native").glob("*.c") if p.name not in MACHINE_FILES]
    command = ["gcc", "-std=gnu11", "-O2", "-c", *map(str, sorted(sources))]
    subprocess.run(command, cwd=place, check=True, timeout=120)
    objects = sorted(map(str, place.glob("*.o")))
    subprocess.run(["ar", "rcs", "libldfs.a", *objects], cwd=place, check=True, timeout=60)
    return place


LIBRARIES = ("-lz", "-lzstd", "-llzo2", "-lsnappy", "-pthread")
BLOCK, FAIL, SPILL = "0", "1", "2"
SWAP, MPROTECT = "0", "1"
SIGSEGV, UFFD = "0", "1"


def run_program(core: Path, program: str, *arguments: str) -> tuple[int, str]:
    source = TOP / "tests" / "native" / f"{program}.c"
    include = TOP / "native"
    command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{include}"]
    command += [str(source), "-o", program, "-L.", "-lldfs", *LIBRARIES]
    subprocess.run(command, cwd=core, check=True, timeout=60)
    done = subprocess.run(
        [str(core / program), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_signal_while_a_range_is_made_writable(core: Path) -> None:
    assert run_program(core, "signal_in_writable") == (0, "hit\n")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("32", "2", "65536", "65536", BLOCK), id="zstd"),
        pytest.param(("32", "3", "4096", "256", BLOCK), id="zstd-small-pool"),
        pytest.param(("1", "1", "65536", "1024", BLOCK), id="zlib-one-thread"),
        pytest.param(("2", "2", "4096", "64", SPILL), id="lzo-spill"),
        pytest.param(("4", "3", "16384", "64", FAIL), id="snappy-fail"),
        pytest.param(("0", "2", "4194304", "16384", BLOCK), id="plain-large-granules"),
        pytest.param(("32", "2", "65536", "4096", BLOCK, "pipe"), id="zstd-pipe"),
        pytest.param(("32", "2", "4096", "256", BLOCK, "uffd"), id="zstd-uffd"),
        pytest.param(("4", "2", "16384", "64", FAIL, "uffd"), id="snappy-fail-uffd"),
    ],
)
def test_packed_dumps_are_exact(core: Path, arguments: tuple[str, ...]) -> None:
    assert run_program(core, "packed_dump", *arguments) == (0, "same\n")


@pytest.mark.parametrize("arming", [SWAP, MPROTECT], ids=["swap", "mprotect"])
@pytest.mark.parametrize(
    ("backend", "answer"), [(SIGSEGV, "EFAULT"), (UFFD, "read")], ids=["sigsegv", "uffd"]
)
def test_stores_of_the_kernel(core: Path, backend: str, answer: str, arming: str) -> None:
    """Only userfaultfd catches them; with mprotect the system call fails, and memory stays."""
    assert run_program(core, "kernel_writes", backend, arming) == (0, f"{answer}\nsame\n")
