# SPDX-License-Identifier: GPL-2.0-or-later
"""C programs against the C core itself, without Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.huge_pages import huge_pages
from tests.fixtures.transparent_pages import transparent_pages

BLOCK, FAIL, SPILL = "0", "1", "2"
SWAP, MPROTECT = "0", "1"
SIGSEGV, UFFD, SIGBUS = "0", "1", "2"
HUGE_PAGES = 64
"""That the programs take at the most."""


Programs = dict[str, Path]
Run = Callable[..., tuple[int, str]]


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("core_parts", id="states, pool and swap"),
        pytest.param("effort_parts", id="helpers are called where they gain"),
        pytest.param("store_or_not", id="what the context calls a store"),
        pytest.param("pool_parts", id="the pool of several keepers and of locked memory"),
    ],
)
def test_parts_of_the_core(program: str, programs: Programs, run_program: Run) -> None:
    assert run_program(programs[program]) == (0, "right\n")


def test_a_signal_while_a_range_is_made_writable(programs: Programs, run_program: Run) -> None:
    assert run_program(programs["signal_in_writable"]) == (0, "hit\n")


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
        pytest.param(("32", "2", "4096", "256", BLOCK, "sigbus"), id="zstd-sigbus"),
        pytest.param(("plain", "0", "4096", "256", BLOCK), id="plain"),
        pytest.param(("plain", "0", "4096", "4096", BLOCK), id="plain-shares"),
        pytest.param(("plain", "0", "65536", "65536", BLOCK), id="plain-large-pool"),
        pytest.param(("plain", "0", "4096", "64", FAIL), id="plain-fail"),
        pytest.param(("plain", "0", "4096", "256", BLOCK, "uffd"), id="plain-uffd"),
        pytest.param(("plain", "0", "4096", "256", SPILL, "sigbus"), id="plain-sigbus-spill"),
    ],
)
def test_dumps_are_exact(programs: Programs, run_program: Run, arguments: tuple[str, ...]) -> None:
    assert run_program(programs["exact_dumps"], *arguments) == (0, "same\n")


@pytest.mark.parametrize("arming", [SWAP, MPROTECT], ids=["swap", "mprotect"])
@pytest.mark.parametrize(
    ("backend", "answer"),
    [(SIGSEGV, "EFAULT"), (UFFD, "read"), (SIGBUS, "EFAULT")],
    ids=["sigsegv", "uffd", "sigbus"],
)
def test_stores_of_the_kernel(
    programs: Programs, run_program: Run, backend: str, answer: str, arming: str
) -> None:
    """Only userfaultfd catches them; with mprotect the system call fails, and memory stays."""
    assert run_program(programs["kernel_writes"], backend, arming) == (0, f"{answer}\nsame\n")


@pytest.mark.parametrize(
    ("program", "arguments", "answer"),
    [
        pytest.param("exact_dumps", ("32", "2", "2097152", "4096", BLOCK), "same\n", id="zstd"),
        pytest.param("exact_dumps", ("plain", "0", "2097152", "8192", BLOCK), "same\n", id="plain"),
        pytest.param(
            "exact_dumps", ("plain", "0", "4194304", "4096", FAIL), "same\n", id="two-a-granule"
        ),
        pytest.param("kernel_writes", (UFFD, MPROTECT), "read\nsame\n", id="uffd"),
        pytest.param("kernel_writes", (SIGSEGV, MPROTECT), "EFAULT\nsame\n", id="sigsegv"),
        pytest.param("kernel_writes", (SIGBUS, MPROTECT), "EFAULT\nsame\n", id="sigbus"),
    ],
)
def test_huge_pages(
    programs: Programs, run_program: Run, program: str, arguments: tuple[str, ...], answer: str
) -> None:
    """Of memory that is adopted: stores, reads, stores of the kernel, holes, and holes that are
    punched before and after the instant. No dump takes a page of the pool."""
    with huge_pages(HUGE_PAGES):
        assert run_program(programs[program], *arguments, "huge") == (0, answer)


@pytest.mark.parametrize("codec", ["plain", "32"])
@pytest.mark.parametrize(("word", "granule"), [("2M", 2 << 20), ("thp", 4096), ("thp", 2 << 20)])
def test_arenas_made_of_huge_pages(
    programs: Programs, run_program: Run, word: str, granule: int, codec: str
) -> None:
    with huge_pages(HUGE_PAGES) if word == "2M" else transparent_pages():
        arguments = (codec, "2", str(granule), str(max(granule >> 9, 256)), BLOCK, word)
        assert run_program(programs["exact_dumps"], *arguments) == (0, "same\n")


def test_huge_pages_are_not_moved(programs: Programs, run_program: Run) -> None:
    """Nor protected in part."""
    with huge_pages(HUGE_PAGES):
        code, printed = run_program(programs["kernel_writes"], UFFD, SWAP, "huge")
        assert code == 1 and "INIT: Invalid argument" in printed
        small = ("plain", "0", "65536", "4096", BLOCK, "huge")
        code, printed = run_program(programs["exact_dumps"], *small)
        assert code == 1 and "INIT: -22" in printed


def test_a_discard_under_way_at_start(programs: Programs, run_program: Run) -> None:
    """What START found unprotected by it is protected again before the swap. test_sanitizers.py
    does it after 300 us, `make sanitize` also after 0 and 3000."""
    assert run_program(programs["discard_at_start"], "1000", "2") == (0, "same\n")


def test_release_at_any_moment_of_a_start(programs: Programs, run_program: Run) -> None:
    assert run_program(programs["release_at_start"]) == (0, "lives\n")


@pytest.mark.parametrize("backend", [SIGSEGV, UFFD, SIGBUS], ids=["sigsegv", "uffd", "sigbus"])
def test_readers_of_images(programs: Programs, run_program: Run, backend: str) -> None:
    assert run_program(programs["image_readers"], "40", backend) == (0, "same\n")


@pytest.mark.parametrize(("what", "answer"), [("stores", "none waits"), ("user", "changed")])
def test_a_target_that_stands_still(
    programs: Programs, run_program: Run, what: str, answer: str
) -> None:
    """Its slots are for stores; and a thread that waits for one keeps no other."""
    assert run_program(programs["standing_target"], what) == (0, f"{answer}\n")


@pytest.mark.parametrize(
    "case", ["late_look", "last_stays", "both_below", "without_flags", "other_flags"]
)
def test_another_handler_comes_at_the_worst_moment(
    programs: Programs, run_program: Run, case: str
) -> None:
    """Between two system calls of ours, or in another way: no ring, and none is forgotten."""
    assert run_program(programs["handler_races"], case) == (0, "right\n")
