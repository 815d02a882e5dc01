# SPDX-License-Identifier: GPL-2.0-or-later
"""The soak for a moment, and what it would say if something were wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from choices import Chooser, DumpChoice
from judge import Verdict, judge_reads, judge_target
from oracle import Reference

from livedumpfs.dumpfile import HOLE, LOST, SAVED, open_dump
from livedumpfs.settings import REAL_BACKENDS
from livedumpfs.units import PAGE_SIZE

PROGRAM = Path(__file__).with_name("soak.py")
SECONDS = float(os.environ.get("SOAK_SECONDS", "12"))
ROOM_S = 400.0
"""For the dump that is under way when the time is over, on busy cores, and its deadline."""
PAGES = 64
CHOOSER = Chooser(1, 1024)
DumpWriter = Callable[..., Any]


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """In memory where there is a tmpfs; gone afterwards, however the soak ends."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="livedump-soak-", dir=parent))
    yield folder
    shutil.rmtree(folder)


def run_soak(folder: Path, tmpfs: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output. Whatever happens, the host that it started ends with it."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "--tmpfs", str(tmpfs), *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    try:
        out, _ = process.communicate(timeout=SECONDS + ROOM_S)
    except BaseException:
        process.send_signal(signal.SIGKILL)
        print(process.communicate()[0])
        raise
    return process.returncode, out


@pytest.mark.timeout(SECONDS + ROOM_S + 60)
def test_dumps_of_all_kinds(tmp_path: Path, memory_folder: Path) -> None:
    code, out = run_soak(tmp_path, memory_folder, "--seconds", str(SECONDS), "--largest", "32")
    print(out)
    assert code == 0, "see above"
    counted = json.loads(out.splitlines()[-1])
    assert f"SOAK_SEED={counted['seed']}" == out.splitlines()[0]
    assert counted["good"] and counted["differences"] == counted["lost"] == counted["hangs"] == 0
    assert counted["dumps"] > 0 and counted["pages"] > 0 and counted["faults"] > 0
    assert not [*tmp_path.iterdir(), *memory_folder.iterdir()]


def test_a_hang_is_reported_with_what_is_known(tmp_path: Path, memory_folder: Path) -> None:
    """One that is over before any dump can be."""
    words = ("--seed", "1", "--only", "0", "--deadline", "0.01")
    code, out = run_soak(tmp_path, memory_folder, *words)
    assert code == 1
    counted = json.loads(out.splitlines()[-1])
    assert counted["hangs"] == 1 and counted["failed"] == [0] and not counted["good"]
    assert "hangs: nothing after step" in out and "task " in out
    assert "again: soak.py --seed 1 --largest 1024 --only 0" in out


def test_choices_follow_from_seed_and_index_and_leave_nothing_out() -> None:
    chosen = [CHOOSER.choose(i) for i in range(2000)]
    assert chosen == [CHOOSER.choose(i) for i in range(2000)]
    assert chosen[:8] != [Chooser(2, 1024).choose(i) for i in range(8)]
    assert max(c.machine.size for c in chosen) > 512 << 20
    assert all(Chooser(1, 32).choose(i).machine.size <= 32 << 20 for i in range(100))
    for choice in chosen:
        choice.settings.check()
    settings = [c.settings for c in chosen]
    assert {s.format for s in settings} == {"elf", "raw", "kdump"}
    assert {s.compression for s in settings} == {"zstd", "zlib", "lzo", "snappy", "none"}
    assert {s.policy for s in settings} == {"block", "spill", "fail"}
    both = {(s.backend, s.arming) for s in settings}
    assert both == {(a, b) for a in REAL_BACKENDS for b in ("swap", "mprotect")}
    assert {c.settings.pool_is_auto for c in chosen} == {True, False}
    assert {c.target for c in chosen} == {"tmpfs", "file", "slow", "pipe", "none"}
    assert {c.end for c in chosen} == {"finish", "release", "kill"}
    assert {c.step for c in chosen if c.end == "kill"} >= {"begin", "init", "start", "sweep"}
    assert {c.may_lose for c in chosen} == {True, False}


def finished(policy: str = "block") -> DumpChoice:
    """Of a dump to a file that was not broken off, and is read back without its checksums."""
    return next(
        c
        for c in (CHOOSER.choose(i) for i in range(10_000))
        if c.settings.policy == policy and (c.target, c.end, c.verify) == ("tmpfs", "finish", False)
    )


def done_with(**what: Any) -> dict[str, Any]:
    """What a host found in a good dump, but for `what`."""
    good = {"verdict": "consistent", "lost": [], "failure": None, "counters": {"lost": 0}}
    return {**good, "pages": 0, "different": [], "refused": [], "errors": [], **what}


@pytest.fixture
def memory() -> Iterator[tuple[bytes, Reference]]:
    """Random pages, a hole in the middle, and a reference of both."""
    data = os.urandom(30 * PAGE_SIZE) + bytes(4 * PAGE_SIZE) + os.urandom(30 * PAGE_SIZE)
    with Reference(len(data)) as reference:
        os.pwrite(reference.fd, data, 0)
        yield data, reference


@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
def test_a_page_that_differs_is_found(
    memory: tuple[bytes, Reference], write_dump: DumpWriter, tmp_path: Path, format: str
) -> None:
    data, reference = memory
    path = tmp_path / "dump"
    write_dump(path, data, format=format, compression="none")
    verdict = Verdict()
    judge_target(finished(), path, reference, "finish", set(), done_with(), verdict)
    assert (verdict.problems, verdict.different, verdict.pages) == ([], 0, PAGES)
    for at in (page * PAGE_SIZE + 17 for page in (0, 31, 63)):
        os.pwrite(reference.fd, bytes([data[at] ^ 1]), at)
    verdict = Verdict()
    judge_target(finished(), path, reference, "finish", set(), done_with(), verdict)
    assert verdict.different == 3 and "3 pages of the target differ" in verdict.problems[0]


def test_lost_pages_must_be_named_by_all_and_allowed(
    memory: tuple[bytes, Reference], write_dump: DumpWriter, tmp_path: Path
) -> None:
    data, reference = memory
    states = [SAVED if any(data[i : i + PAGE_SIZE]) else HOLE for i in range(0, len(data), 4096)]
    states[5] = LOST
    write_dump(tmp_path / "dump", data, states=states, verdict="torn")
    said = {"verdict": "torn", "counters": {"lost": 1}}

    def problems(policy: str, lost: list[list[int]]) -> list[str]:
        verdict, done = Verdict(), done_with(lost=lost, **said)
        before = tmp_path / "dump"
        judge_target(finished(policy), before, reference, "finish", set(), done, verdict)
        judge_reads(finished(policy), done, verdict)
        assert verdict.lost == 1 and verdict.pages == PAGES - 1
        return verdict.problems

    assert problems("fail", [[5, 6]]) == []
    assert "the host lost" in problems("fail", [[6, 7]])[0]
    assert "1 granules lost" in problems("block", [[5, 6]])[0]


def test_what_a_host_finds_counts(memory: tuple[bytes, Reference]) -> None:
    def problem(**what: Any) -> str:
        verdict = Verdict()
        judge_reads(finished(), done_with(**what), verdict)
        (found,) = verdict.problems
        return found

    assert "1 pages of the live snapshot differ: [9]" in problem(different=[9])
    assert "refused, and are not lost" in problem(refused=[[1, 2]])
    assert "errors" in problem(errors=["OSError"])
    assert "it failed" in problem(failure="cannot write")


def test_an_older_dump_and_none_are_no_dump(
    memory: tuple[bytes, Reference], write_dump: DumpWriter, tmp_path: Path
) -> None:
    data, reference = memory
    path = tmp_path / "dump"
    for reached, good in (("begin", True), ("init", False)):
        verdict = Verdict()
        judge_target(finished(), path, reference, reached, set(), None, verdict)
        assert (verdict.problems == []) == good
    write_dump(path, data)
    with open_dump(path) as dump:
        before = dump.dump_id
    for reached, good in (("begin", True), ("sweep", False)):
        verdict = Verdict()
        judge_target(finished(), path, reference, reached, {before}, None, verdict)
        assert (verdict.problems == []) == good and verdict.pages == 0
