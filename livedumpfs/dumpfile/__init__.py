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

from typing import TYPE_CHECKING

from livedumpfs.dumpfile.checksums import ChecksumReport, OnProgress, verify_checksums
from livedumpfs.dumpfile.compare import Comparison, Difference, DifferentRange, compare_dumps
from livedumpfs.dumpfile.convert import convert_dump, is_image, refuse_inconsistent
from livedumpfs.dumpfile.describe import (
    describe_dump,
    description_rows,
    excluded_text,
    filtered_rows,
    format_description,
    format_filtered,
)
from livedumpfs.dumpfile.destination import NewFile, Output, Stream
from livedumpfs.dumpfile.filtered_file import (
    FilteredDump,
    NewFiltered,
    has_vmcoreinfo,
    open_filtered,
)
from livedumpfs.dumpfile.flat import is_flattened, rearrange
from livedumpfs.dumpfile.layout import DumpArray
from livedumpfs.dumpfile.pages import DamagedPage
from livedumpfs.dumpfile.reader import DumpFile, open_dump, read_dump
from livedumpfs.dumpfile.stored import StoredFiles, files_of, missing_pages
from livedumpfs.dumpfile.verify import VerifyReport, format_ranges, verify_dump
from livedumpfs.formats.snapshot_files import INFO, OpenFile, SnapshotFiles, standard_images
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED

if TYPE_CHECKING:
    from livedumpfs.dumpfile.into_store import store_dump
    from livedumpfs.dumpfile.store_verification import StoreReport, set_aside_damaged, verify_store

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
    "FilteredDump",
    "NewFile",
    "NewFiltered",
    "OnProgress",
    "OpenFile",
    "Output",
    "SnapshotFiles",
    "StoreReport",
    "StoredFiles",
    "Stream",
    "VerifyReport",
    "compare_dumps",
    "convert_dump",
    "describe_dump",
    "description_rows",
    "excluded_text",
    "files_of",
    "filtered_rows",
    "format_description",
    "format_filtered",
    "format_ranges",
    "has_vmcoreinfo",
    "is_flattened",
    "is_image",
    "missing_pages",
    "open_dump",
    "open_filtered",
    "read_dump",
    "rearrange",
    "refuse_inconsistent",
    "set_aside_damaged",
    "standard_images",
    "store_dump",
    "verify_checksums",
    "verify_dump",
    "verify_store",
]

_OF_STORES = {
    "StoreReport": "store_verification",
    "set_aside_damaged": "store_verification",
    "store_dump": "into_store",
    "verify_store": "store_verification",
}


def __getattr__(name: str) -> object:
    """Load what needs the stores at its first use: hosts, and readers of files, start faster
    without."""
    if name not in _OF_STORES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_OF_STORES[name]}"), name)
