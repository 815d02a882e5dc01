# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump of a host is compared with: the copy that the core made inside the pause."""

from __future__ import annotations

import mmap

from livedumpfs.cli.proof import prove_dump
from livedumpfs.dumpfile import open_dump
from tests.fixtures.hosts import RunningHost


def is_of_the_instant(host: RunningHost, name: str) -> None:
    """All memory of the dump is that copy, and its ledger holds."""
    with open_dump(name) as dump, mmap.mmap(host.reference, host.size, prot=mmap.PROT_READ) as copy:
        assert dump.verdict == "consistent"
        assert dump.read_arena(0, host.size) == copy[:]
        report = prove_dump(dump)
        assert report.ok and report.ledger is not None and report.ledger.ok, report.problems
