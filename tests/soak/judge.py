# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump must be, by what was done to it. Knows target and reference, and no machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from choices import STEPS, DumpChoice
from oracle import Reference

from livedumpfs.cli.proof import prove_dump
from livedumpfs.dumpfile import (
    ARMED,
    HOLE,
    LOST,
    SAVED,
    DumpFile,
    is_flattened,
    open_dump,
)
from livedumpfs.dumpfile.destination import NewFile
from livedumpfs.dumpfile.flat import rearrange
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.units import PAGE_SIZE

SHOWN = 8
"""Pages that are named at the most."""


@dataclass
class Verdict:
    """Of one dump."""

    pages: int = 0
    """Compared, on the target and in the live snapshot."""
    different: int = 0
    lost: int = 0
    """Pages that the dump names as lost."""
    unsealed: bool = False
    """What was compared is a part: it was released or killed before its end."""
    problems: list[str] = field(default_factory=list)

    def expect(self, good: bool, problem: str) -> None:
        if not good:
            self.problems.append(problem)


def dump_id_of(path: Path) -> bytes | None:
    """Of the dump that lies there; None: there is none."""
    try:
        with open_dump(path) as dump:
            return dump.dump_id
    except (InvalidDump, TargetError):
        return None


def judge_reads(choice: DumpChoice, done: dict[str, Any], verdict: Verdict) -> None:
    """What the host itself found in its snapshot and counters."""
    verdict.pages += done["pages"]
    wrong = done["different"]
    verdict.different += len(wrong)
    verdict.expect(not wrong, f"{len(wrong)} pages of the live snapshot differ: {wrong[:SHOWN]}")
    verdict.expect(not done["errors"], f"errors: {done['errors']}")
    lost, failure = done["counters"]["lost"], done["failure"]
    verdict.expect(choice.may_lose or not lost, f"{lost} granules lost: {failure}")
    verdict.expect(not failure, f"it failed: {failure}")
    if choice.end != "finish":
        return
    named = {page for first, end in done["lost"] for page in range(first, end)}
    verdict.lost = len(named)
    if choice.target == "pipe":
        return  # what has left by a pipe cannot be read back
    for first, end in done["refused"]:
        inside = not named.isdisjoint(range(first, end))
        verdict.expect(inside, f"pages {first} to {end} were refused, and are not lost")
    if choice.target == "none":
        expected = "torn" if lost else "consistent"
        verdict.expect(done["verdict"] == expected, f"{done['verdict']}, not {expected}")


def judge_target(
    choice: DumpChoice,
    path: Path,
    reference: Reference,
    reached: str,
    before: set[bytes | None],
    done: dict[str, Any] | None,
    verdict: Verdict,
) -> None:
    """`reached`: the last step that was answered; `before`: dump_id_of what lay there before;
    `done`: what the host found, None: it was killed. What was released before its START leaves
    nothing beside an older dump."""
    nothing = STEPS.index(reached) < STEPS.index("init" if done is None else "start")
    try:
        dump = open_dump(path)
    except (InvalidDump, TargetError) as error:
        verdict.expect(nothing, f"there is no dump: {error}")
        return
    with dump:
        if dump.dump_id in before:
            verdict.expect(nothing, "an older dump lies there")
            return
        _compare(dump, reference, verdict)
        _judge_ending(choice, dump, reached, done, verdict)
        if choice.verify:
            _judge_report(dump, verdict)


def _compare(dump: DumpFile, reference: Reference, verdict: Verdict) -> None:
    wrong = reference.wrong_pages(dump)
    counted = [*dump.pfn_ranges(SAVED), *dump.pfn_ranges(HOLE)]
    verdict.pages += sum(end - first for first, end in counted)
    verdict.different += len(wrong)
    if len(wrong):
        per = dump.granule_size // PAGE_SIZE
        entries = [
            f"page {p}: {dump.entries[p // per]}" for p in wrong[:: max(1, len(wrong) // SHOWN)]
        ]
        verdict.problems.append(
            f"{len(wrong)} pages of the target differ, in {len(np.unique(wrong // per))} granules: "
            + "; ".join(entries[: SHOWN + 1])
        )


def _judge_ending(
    choice: DumpChoice,
    dump: DumpFile,
    reached: str,
    done: dict[str, Any] | None,
    verdict: Verdict,
) -> None:
    verdict.unsealed = not dump.sealed
    counts = dump.state_counts()
    verdict.lost = sum(end - first for first, end in dump.pfn_ranges(LOST))
    verdict.expect(choice.may_lose or not counts[LOST], f"{counts[LOST]} granules lost")
    verdict.expect(dump.sealed or reached != "finish", "it was finished, and is not sealed")
    verdict.expect(not (dump.sealed and counts[ARMED]), f"sealed, and {counts[ARMED]} not saved")
    verdict.expect(not (dump.sealed and dump.bad_blocks), f"bad blocks {dump.bad_blocks}")
    expected = "torn" if counts[LOST] else "consistent"
    expected = expected if dump.sealed else "incomplete"
    verdict.expect(dump.verdict == expected, f"the dump says {dump.verdict}, not {expected}")
    if choice.end == "finish" and done is not None:
        said = done["counters"]["lost"], done["verdict"]
        verdict.expect(said == (counts[LOST], dump.verdict), f"the host says {said}")
        named = [list(pages) for pages in dump.pfn_ranges(LOST)]
        verdict.expect(done["lost"] == named, f"the host lost {done['lost'][:SHOWN]}")


def _judge_report(dump: DumpFile, verdict: Verdict) -> None:
    report = prove_dump(dump)
    checksums = report.checksums
    verdict.expect(
        not (checksums.bad or checksums.stale or checksums.unreadable), f"{report.problems}"
    )
    if report.ledger and dump.verdict == "consistent":
        verdict.expect(report.ledger.ok, f"the ledger: {report.ledger.message}")


def unpack_stream(stream: Path, path: Path) -> bool:
    """A dump that came through a pipe; False: it is broken off, and refused."""
    if not is_flattened(str(stream)):
        return False
    with open(stream, "rb") as file:
        try:
            with NewFile(str(path)) as output:
                rearrange(file.fileno(), str(stream), output, "kdump")
        except InvalidDump:
            return False
    return True
