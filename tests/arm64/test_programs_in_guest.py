# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs of tests/native/ on Debian's own kernel for arm64, in one run of a guest. Its
processor is emulated: that shows instructions, signal frames, page tables and system calls of
arm64, and not the order in which a real one does loads and stores.

LIVEDUMP_ARM64=1 (make test-arm64) is the long mode: all programs on Debian's kernels with pages of
4 and of 16 KiB, and on one of its source with 64, for Debian has none; with 100 dumps by each
backend, and all interleavings. The short one is what the processor itself could break, in one
boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.arm64.arm64_guest import LONG, Answer, Pages, fetch, run_in_guest
from tests.fixtures.compilers import compiling
from tests.native.conftest import Build
from tests.native.test_interleavings import CASES, Interleave

pytestmark = pytest.mark.together

PAGES: tuple[Pages, ...] = ("4k", "16k", "64k") if LONG else ("4k",)
DEADLINE_S = 7200 if LONG else 800
ORDERS = 300 if LONG else 20
"""Of an interleaving, for each choice of granules."""
PAGE = "PAGE"
"""In a command: the kernel's, in bytes; no granule is smaller."""

SIGSEGV, UFFD, SIGBUS = "0", "1", "2"
ANSWERS = {SIGSEGV: "EFAULT", UFFD: "read", SIGBUS: "EFAULT"}
EXACT = {
    "plain 0 65536 4096 0": 100 if LONG else 1,
    "plain 0 65536 4096 0 uffd": 100 if LONG else 1,
    **(
        {
            "plain 0 65536 4096 0 sigbus": 100,
            f"plain 0 {PAGE} 1024 0": 10,
            f"plain 0 {PAGE} 1024 0 sigbus": 10,
            f"32 2 {PAGE} 1024 0 uffd": 10,
            f"32 2 {PAGE} 1024 0 sigbus": 10,
            f"32 2 {PAGE} 1024 0": 10,
            f"plain 0 {PAGE} 1024 1": 10,
        }
        if LONG
        else {}
    ),
}
"""How many dumps of which kind."""
INTERLEAVED = (
    CASES if LONG else [case for case in CASES if case in ("ring", "reader", "discard", "sigbus")]
)

SHORT: dict[str, str] = {
    "store_or_not": "right",
    **{
        f"kernel_writes {backend} {arming} small": f"{ANSWERS[backend]}\nsame"
        for backend, arming in ((SIGSEGV, "0"), (UFFD, "0"), (SIGBUS, "1"))
    },
    **{f"exact_dumps {how}": "same" for how in EXACT},
    **{f"handler_races {case}": "right" for case in ("late_look", "without_flags")},
}
MORE: dict[str, str] = {
    "core_parts": "right",
    "pool_parts": "right",
    "signal_in_writable": "hit",
    **{
        f"kernel_writes {backend} {arming}": f"{ANSWERS[backend]}\nsame"
        for backend in ANSWERS
        for arming in "01"
    },
    **{f"handler_races {case}": "right" for case in ("last_stays", "both_below", "other_flags")},
    **{f"image_readers 5 {backend}": "same" for backend in ANSWERS},
    "discard_at_start 1000 1": "same",
    "release_at_start": "lives",
    "standing_target stores": "none waits",
}
COMMANDS = {**SHORT, **MORE} if LONG else SHORT
"""What each prints."""
INTERLEAVINGS = [f"interleave-program {case} -s 5 -r {ORDERS}" for case in INTERLEAVED]


def _dumps(command: str) -> int:
    return EXACT.get(command.removeprefix("exact_dumps "), 3 if LONG else 1)


@pytest.fixture(scope="module", params=PAGES)
def answers(
    request: pytest.FixtureRequest,
    cross: Build,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Answer]:
    pages: Pages = request.param
    fetch("build/root.cpio", f"build/kernel-{pages}/vmlinuz")
    with compiling("arm64"):
        programs = cross.programs({command.split()[0] for command in COMMANDS})
        place = tmp_path_factory.mktemp("interleave")
        interleave = Interleave(Build(place, cross.compiler, cross.flags)).program
    commands = ["page", *COMMANDS, *INTERLEAVINGS]
    page = str(int(pages.removesuffix("k")) << 10)
    lines = [
        f"DUMPS={_dumps(command)} /programs/{command.replace(PAGE, page)}"
        for command in commands[1:]
    ]
    found = run_in_guest(
        ["grep KernelPageSize /proc/self/smaps | head -n 1", *lines],
        [*programs.values(), interleave],
        tmp_path_factory.mktemp("guest"),
        pages=pages,
        memory="2G",  # stacks and page tables take more of it where pages are large
        deadline_s=DEADLINE_S,
    )
    kib = int(found[0].printed.split()[1])
    assert f"{kib}k" == pages, "the guest has another kernel"
    return dict(zip(commands, found, strict=True))


@pytest.mark.timeout(DEADLINE_S + 900)
@pytest.mark.parametrize("command", COMMANDS)
def test_programs_are_right(command: str, answers: dict[str, Answer]) -> None:
    assert answers[command] == Answer(0, COMMANDS[command])


@pytest.mark.timeout(DEADLINE_S + 900)
@pytest.mark.parametrize("command", INTERLEAVINGS)
def test_interleavings(command: str, answers: dict[str, Answer]) -> None:
    assert answers[command].code == 0, answers[command].printed
    assert "runs" in answers[command].printed


def test_the_table_of_programs_is_whole() -> None:
    """What is beside this table has a reason not to run in the guest."""
    here = {path.stem for path in (Path(__file__).parents[1] / "native").glob("*.c")}
    named = {command.split()[0] for command in (*SHORT, *MORE)}
    others = {"effort_parts", "headroom_below"}
    assert here - named <= others
