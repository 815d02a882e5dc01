# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading snapshots: dumps on a target, finished or broken off.

::

    with open_dump("/dev/loop0") as dump:
        dump.verdict                    # "consistent", "torn", "incomplete"
        dump.read_physical(0x1000, 64)  # OSError EIO where the dump has nothing
        report = verify_dump(dump)      # checksums, and the built-in guest's ledger
        text = format_description(describe_dump(dump))

Everything read is untrusted: InvalidDump in one sentence, never a traceback or a gigabyte.
"""

from __future__ import annotations

from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED
from livedumpfs.snapshot.checksums import ChecksumReport, Progress, verify_checksums
from livedumpfs.snapshot.describe import describe_dump, format_description
from livedumpfs.snapshot.dumpfile import DumpFile, open_dump
from livedumpfs.snapshot.layout import DumpArray
from livedumpfs.snapshot.verify import VerifyReport, format_ranges, verify_dump

__all__ = [
    "ARMED",
    "HOLE",
    "LOST",
    "SAVED",
    "ChecksumReport",
    "DumpArray",
    "DumpFile",
    "Progress",
    "VerifyReport",
    "describe_dump",
    "format_description",
    "format_ranges",
    "open_dump",
    "verify_checksums",
    "verify_dump",
]
