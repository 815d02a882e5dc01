# SPDX-License-Identifier: GPL-2.0-or-later
"""Can this dump be trusted: its verdict and its checksums."""

from __future__ import annotations

from dataclasses import dataclass

from livedumpfs.dumpfile.checksums import ChecksumReport, OnProgress, verify_checksums
from livedumpfs.dumpfile.reader import DumpFile
from livedumpfs.formats import table
from livedumpfs.formats.superblock import VerdictWord


@dataclass(frozen=True)
class VerifyReport:
    """The result of verify_dump."""

    verdict: VerdictWord
    checksums: ChecksumReport
    problems: list[str]
    """One sentence each; empty when the dump is good."""

    @property
    def ok(self) -> bool:
        """True when the dump is consistent and nothing in it is wrong."""
        return not self.problems


def verify_dump(
    dump: DumpFile, progress: OnProgress | None = None, *, threads: int = 2
) -> VerifyReport:
    """Read the whole dump back. OSError does not occur: what cannot be read is in the report."""
    checksums = verify_checksums(dump, progress, threads=threads)
    problems = [*_verdict_problems(dump), *_checksum_problems(checksums), *dump.check_rest()]
    return VerifyReport(dump.verdict, checksums, problems)


def _verdict_problems(dump: DumpFile) -> list[str]:
    problems = []
    counts = dump.state_counts()
    if not dump.sealed:
        problems.append("the dump was broken off before it was sealed")
    if counts[table.ARMED]:
        problems.append(f"{counts[table.ARMED]} granules were not saved")
    if counts[table.LOST]:
        ranges = format_ranges(dump.pfn_ranges(table.LOST))
        problems.append(f"{counts[table.LOST]} granules are lost: pages {ranges}")
    if dump.sealed and dump.bad_blocks:
        problems.append(f"{len(dump.bad_blocks)} blocks of the granule table are damaged")
    if not problems and dump.verdict != "consistent":
        problems.append(f"the dump calls itself {dump.verdict}")
    return problems


def _checksum_problems(report: ChecksumReport) -> list[str]:
    named = (
        ("are not as they were saved", report.bad),
        ("should be zeros and are not", report.stale),
        ("cannot be read", report.unreadable),
    )
    return [f"pages {format_ranges(ranges)} {what}" for what, ranges in named if ranges]


def format_ranges(ranges: list[tuple[int, int]], limit: int = 8) -> str:
    """Page ranges as "0x10-0x1f, 0x30 and 3 more ranges"; the end is inclusive."""
    shown = [f"{a:#x}" if b == a + 1 else f"{a:#x}-{b - 1:#x}" for a, b in ranges[:limit]]
    more = f" and {len(ranges) - limit} more ranges" if len(ranges) > limit else ""
    return ", ".join(shown) + more
