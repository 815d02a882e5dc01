# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs of this folder, and of interleave/, under ThreadSanitizer, AddressSanitizer and
UndefinedBehaviorSanitizer, by gcc and by clang: no report at all. Each suppression has its
reason in thread.suppressions.

What ThreadSanitizer cannot run is the backend SIGSEGV. Its own background thread blocks SIGSEGV, so
START refuses with EDEADLK, as it must; and it puts signals off and runs their handlers with all
signals blocked, so that a store in one (`signal_in_writable`) kills the process now and then. The
protocol is the same code with userfaultfd, whose monitor needs no signal, and interleave/ runs the
handler itself.

LIVEDUMP_SANITIZE=1 (make sanitize) is the long mode: more programs, ten times each, and each
sanitizer by both compilers; else each by one of them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.huge_pages import tried_huge_pages
from tests.fixtures.program_files import program_file
from tests.native.test_interleavings import CASES, RANDOM_ALONE, Interleave

LONG = bool(os.environ.get("LIVEDUMP_SANITIZE"))
ROUNDS = 10 if LONG else 1
DISCARDS = 6 if LONG else 2
THREAD = ("-O1", "-g", "-fsanitize=thread")
ADDRESS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# The core's handler must be the one that gets SIGSEGV and SIGBUS.
OPTIONS = "handle_segv=0:handle_sigbus=0:allow_user_segv_handler=1"
SUPPRESSIONS = Path(__file__).with_name("thread.suppressions")
# history_size: both stacks of a race are known, by which it may be suppressed.
ENVIRONMENT = {
    "TSAN_OPTIONS": f"{OPTIONS}:history_size=7:suppressions={SUPPRESSIONS}:print_suppressions=0",
    "ASAN_OPTIONS": OPTIONS,
}

EVERYWHERE = (
    ("core_parts", "right\n"),
    ("kernel_writes 1 0", "read\nsame\n"),
    ("exact_dumps 32 2 4096 256 0 uffd", "same\n"),
    ("exact_dumps plain 0 4096 256 0 uffd", "same\n"),
    ("image_readers 20 1", "same\n"),
    *(
        (
            ("kernel_writes 1 1", "read\nsame\n"),
            ("exact_dumps 4 2 16384 64 1 uffd", "same\n"),
            ("exact_dumps 2 3 4096 64 2 uffd", "same\n"),
            ("exact_dumps plain 0 65536 65536 0 uffd", "same\n"),
            ("exact_dumps plain 0 4096 64 1 uffd", "same\n"),
            ("exact_dumps 0 2 65536 1024 0 uffd", "same\n"),
        )
        if LONG
        else ()
    ),
)
WITH_SIGNALS = (
    ("signal_in_writable", "hit\n"),
    ("kernel_writes 0 0", "EFAULT\nsame\n"),
    (f"discard_at_start 300 {DISCARDS}", "same\n"),
    ("exact_dumps 32 3 4096 256 0", "same\n"),
    ("exact_dumps plain 0 4096 256 0", "same\n"),
    ("kernel_writes 2 0", "EFAULT\nsame\n"),
    *(
        (
            ("exact_dumps 32 3 4096 256 0 sigbus", "same\n"),
            ("kernel_writes 0 1", "EFAULT\nsame\n"),
            (f"discard_at_start 0 {DISCARDS}", "same\n"),
            (f"discard_at_start 3000 {DISCARDS}", "same\n"),
            ("exact_dumps 4 3 16384 64 1", "same\n"),
            ("exact_dumps 4 3 16384 64 1 sigbus", "same\n"),
            ("kernel_writes 2 1", "EFAULT\nsame\n"),
            ("exact_dumps 32 2 65536 4096 0 pipe", "same\n"),
        )
        if LONG
        else ()
    ),
)
HUGE_PAGES = 64
"""That these take at the most."""
WITH_HUGE_PAGES = (
    ("kernel_writes 1 1 huge", "read\nsame\n"),
    ("exact_dumps plain 0 2097152 8192 0 huge", "same\n"),
    *((("exact_dumps 32 2 2097152 4096 0 huge", "same\n"),) if LONG else ()),
)
HUGE_WITH_SIGNALS = (("exact_dumps plain 0 2097152 8192 0 2M", "same\n"),)


@pytest.mark.skipif(not LONG, reason="`make sanitize`; test_no_report, and the orders without it")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_report_in_chosen_orders(
    compiler: str, building: Callable[..., Any], run_program: Callable[..., tuple[int, str]]
) -> None:
    """Of interleave/, whose actors are coroutines of one thread: nothing for ThreadSanitizer."""
    program = Interleave(building("interleave", compiler=compiler, flags=ADDRESS)).program
    # Coroutines have no fake stacks.
    options = {"ASAN_OPTIONS": f"{OPTIONS}:detect_stack_use_after_return=0"}
    for arguments in (
        *((case, "-b", "0") for case in CASES if case not in RANDOM_ALONE),
        *((case, "-s", "11", "-r", "4000") for case in CASES),
    ):
        code, printed = run_program(program, *arguments, deadline_s=1200, **options)
        assert code == 0 and printed.startswith(f"{arguments[0]}: "), printed


@pytest.mark.timeout(3600 if LONG else 900)
@pytest.mark.parametrize(
    ("compiler", "flags", "programs_run"),
    [
        pytest.param(compiler, flags, programs, id=f"{name}-{compiler}")
        for name, usual, flags, programs in (
            ("thread", "clang", THREAD, EVERYWHERE),
            ("address", "gcc", ADDRESS, EVERYWHERE + WITH_SIGNALS),
        )
        for compiler in ("gcc", "clang")
        if LONG or compiler == usual
    ],
)
def test_no_report(
    compiler: str,
    flags: tuple[str, ...],
    programs_run: tuple[tuple[str, str], ...],
    building: Callable[..., Any],
    run_program: Callable[..., tuple[int, str]],
) -> None:
    signals = HUGE_WITH_SIGNALS if programs_run != EVERYWHERE else ()
    names = {command.split()[0] for command, _ in programs_run + WITH_HUGE_PAGES + signals}
    built = building("sanitized", compiler=compiler, flags=flags).programs(names)
    for command, expected in programs_run * ROUNDS:
        name, *arguments = command.split()
        assert run_program(built[name], *arguments, **ENVIRONMENT) == (0, expected), command
    with tried_huge_pages(HUGE_PAGES) as why:
        huge = () if why else (WITH_HUGE_PAGES + signals) * ROUNDS
        for command, expected in huge:
            name, *arguments = command.split()
            assert run_program(built[name], *arguments, **ENVIRONMENT) == (0, expected), command
    print(why or f"{len(huge)} runs with huge pages")
    print(f"{len(programs_run) * ROUNDS} runs on {platform.release()}")


def test_a_race_and_a_bad_store_would_be_reported(
    building: Callable[..., Any], run_program: Callable[..., tuple[int, str]]
) -> None:
    source = program_file(__file__, "race_and_bad_store.c")
    for flags, said in ((THREAD, "data race"), (ADDRESS, "insufficient space")):
        build = building("bad", flags=flags)
        made = build.link("bad", [build.object_of(source)])
        code, printed = run_program(made, **ENVIRONMENT)
        assert code != 0 and said in printed, printed
