# SPDX-License-Identifier: GPL-2.0-or-later
"""The proof that `verify` prints: what the reader of dumps finds, and of the built-in guest the
check of its ledger. Neither of the two needs to know the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from livedumpfs.dumpfile import DumpFile, VerifyReport, verify_dump
from livedumpfs.errors import LivedumpError
from livedumpfs.machines.ledger import LedgerReport, verify_ledger

LEDGER = "ledger"
"""Machine.name of the built-in guest."""


@dataclass(frozen=True)
class ProofReport(VerifyReport):
    """The result of prove_dump."""

    ledger: LedgerReport | None = None
    """None: the machine is not the built-in guest, or the dump is incomplete."""


def prove_dump(
    dump: DumpFile, progress: Callable[[int, int], None] | None = None, *, threads: int = 2
) -> ProofReport:
    """As verify_dump, with the ledger. What of it is wrong, or cannot be read, is one more of the
    problems."""
    report = verify_dump(dump, progress, threads=threads)
    problems, ledger = list(report.problems), None
    if dump.machine_name == LEDGER and dump.verdict != "incomplete":
        try:
            ledger = verify_ledger(
                *(dump.read_physical, dump.arena_size, dump.registers),
                ram_start=dump.memory_map[0].start,
            )
            if not ledger.ok:
                problems.append(f"the ledger is wrong: {ledger.message}")
        except (LivedumpError, OSError, ValueError) as error:
            problems.append(f"the ledger cannot be checked: {error}")
    return ProofReport(report.verdict, report.checksums, problems, ledger)
