# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading snapshots: dumps on a target, finished or broken off.

::

    with open_dump("/dev/loop0") as dump:
        dump.verdict                    # "consistent", "torn", "incomplete"
        dump.read_physical(0x1000, 64)  # OSError EIO where the dump has nothing
        report = verify_dump(dump)      # its verdict and all checksums
        text = format_description(describe_dump(dump))

Everything read is untrusted: InvalidDump in one sentence, never a traceback or a gigabyte.
"""

from __future__ import annotations

from livedumpfs.dumpfile.checksums import ChecksumReport, OnProgress, verify_checksums
from livedumpfs.dumpfile.compare import Comparison, Difference, DifferentRange, compare_dumps
from livedumpfs.dumpfile.convert import convert_dump, is_image, refuse_inconsistent
from livedumpfs.dumpfile.describe import describe_dump, format_description
from livedumpfs.dumpfile.destination import NewFile, Output, Stream
from livedumpfs.dumpfile.flat import is_flattened, rearrange
from livedumpfs.dumpfile.layout import DumpArray
from livedumpfs.dumpfile.pages import DamagedPage
from livedumpfs.dumpfile.reader import DumpFile, open_dump
from livedumpfs.dumpfile.stored import StoredFiles, files_of, missing_pages
from livedumpfs.dumpfile.verify import VerifyReport, format_ranges, verify_dump
from livedumpfs.formats.snapshot_files import INFO, OpenFile, SnapshotFiles, standard_images
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED

__all__ = [
    "ARMED",
    "HOLE",
    "INFO",
    "LOST",
    "SAVED",
    "ChecksumReport",
    "Comparison",
    "DamagedPage",
    "Difference",
    "DifferentRange",
    "DumpArray",
    "DumpFile",
    "NewFile",
    "OnProgress",
    "OpenFile",
    "Output",
    "SnapshotFiles",
    "StoredFiles",
    "Stream",
    "VerifyReport",
    "compare_dumps",
    "convert_dump",
    "describe_dump",
    "files_of",
    "format_description",
    "format_ranges",
    "is_flattened",
    "is_image",
    "missing_pages",
    "open_dump",
    "rearrange",
    "refuse_inconsistent",
    "standard_images",
    "verify_checksums",
    "verify_dump",
]
