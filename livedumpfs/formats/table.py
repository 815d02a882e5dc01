# SPDX-License-Identifier: GPL-2.0-or-later
"""The granule table as it lies on a target: native/ldfs.h, "the granule table on a target".

The C core writes it; this module only reads bytes. A block counts when magic, dump id, index, count
and checksum are right and each of its entries is possible. The granules of any other block count as
not saved; in a dump that was broken off they are not.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from livedumpfs.units import PAGE_SIZE

BLOCK_SIZE: Final = 4096
BLOCK_ENTRIES: Final = 169
MAGIC: Final = b"LDFSTAB1"

ARMED: Final = 0
"""Not saved (yet)."""
SAVED: Final = 6
HOLE: Final = 7
LOST: Final = 8
STATE_NAMES: Final = {ARMED: "missing", SAVED: "saved", HOLE: "hole", LOST: "lost"}
"""Names of the states that a table on a target can hold."""

BY_NONE: Final = 0
BY_SWEEP: Final = 1
BY_FAULT: Final = 2
BY_STEAL: Final = 3

ENTRY: Final = np.dtype(
    [
        ("where", "<u8"),
        ("checksum", "<u8"),
        ("stored", "<u4"),
        ("state", "u1"),
        ("how", "u1"),
        ("reserved", "<u2"),
    ]
)
"""struct ldfs_table_entry, 24 bytes."""

BLOCK: Final = np.dtype(
    [
        ("magic", "S8"),
        ("dump_id", "V16"),
        ("index", "<u4"),
        ("count", "<u4"),
        ("checksum", "<u8"),
        ("entries", ENTRY, (BLOCK_ENTRIES,)),
    ]
)
"""struct ldfs_table_block, 4096 bytes."""

Entries = npt.NDArray[np.void]
"""One-dimensional array of ENTRY."""

MAX_GRANULES: Final = 1 << 23
"""Most granules of one dump. It bounds what a reader of a hostile file allocates (192 MiB)."""

_CHECKSUM = slice(32, 40)


def block_count(granules: int) -> int:
    """Number of blocks of a table of `granules` granules."""
    return -(-granules // BLOCK_ENTRIES)


def table_size(granules: int) -> int:
    """Bytes of the table of `granules` granules."""
    return block_count(granules) * BLOCK_SIZE


def empty_entries(granules: int) -> Entries:
    """`granules` entries that say: not saved."""
    return np.zeros(granules, dtype=ENTRY)


def block_checksum(block: bytes | bytearray | memoryview) -> int:
    """XXH3-64 of a block of 4096 bytes with its checksum field taken as zero."""
    content = bytearray(block)
    content[_CHECKSUM] = bytes(8)
    return xxhash.xxh3_64_intdigest(content)


def _expected_count(index: int, granules: int) -> int:
    return min(BLOCK_ENTRIES, granules - index * BLOCK_ENTRIES)


def parse_block(
    data: bytes | memoryview, dump_id: bytes, index: int, granules: int
) -> Entries | None:
    """Entries of block `index` of a table of `granules` granules; None when the block does not
    count."""
    if len(data) != BLOCK_SIZE or data[:8] != MAGIC or data[8:24] != dump_id:
        return None
    block = np.frombuffer(data, dtype=BLOCK, count=1)[0]
    count = int(block["count"])
    if int(block["index"]) != index or count != _expected_count(index, granules):
        return None
    if block_checksum(data) != int(block["checksum"]):
        return None
    entries: Entries = block["entries"][:count]
    if not np.isin(entries["state"], (ARMED, SAVED, HOLE, LOST)).all():
        return None
    if (entries["how"] > BY_STEAL).any():
        return None
    return entries


class GranuleKind(NamedTuple):
    """Granules of one kind, and their pages."""

    granules: int
    pages: list[tuple[int, int]]
    """Page numbers of the arena, [first, end) of each run, in order."""
    runs: int
    """Number of all runs; `pages` has fewer when a limit was given."""


def kinds(
    entries: Entries, granule_size: int, arena_size: int, limit: int | None = None
) -> dict[str, GranuleKind]:
    """All granules by kind. Saved ones by the path that saved them: `fault` (copy-on-write),
    `sweep`, `steal`; the others by their state: `hole`, `lost`, `missing`. Each granule is of one
    kind. `limit`: most runs in each kind's `pages`."""
    states, how = entries["state"], entries["how"]
    chosen = {
        "fault": (states == SAVED) & (how == BY_FAULT),
        "sweep": (states == SAVED) & ((how == BY_SWEEP) | (how == BY_NONE)),
        "steal": (states == SAVED) & (how == BY_STEAL),
        "hole": states == HOLE,
        "lost": states == LOST,
        "missing": states == ARMED,
    }
    pages, last = granule_size // PAGE_SIZE, arena_size // PAGE_SIZE
    found = {}
    for name, mask in chosen.items():
        runs = _runs(mask)
        shown = runs[:limit].tolist()
        found[name] = GranuleKind(
            int(np.count_nonzero(mask)),
            [(a * pages, min(b * pages, last)) for a, b in shown],
            len(runs),
        )
    return found


def _runs(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """[first, end) of each run of True in `mask`: an array of shape (runs, 2)."""
    padded = np.concatenate(([False], mask, [False])).astype(np.int8)
    return np.flatnonzero(np.diff(padded)).reshape(-1, 2)


def build_block(entries: Entries, dump_id: bytes, index: int) -> bytes:
    """The 4096 bytes of block `index`. ValueError: not 1 to 169 entries."""
    if not 1 <= len(entries) <= BLOCK_ENTRIES:
        raise ValueError(f"a table block has 1 to {BLOCK_ENTRIES} entries, not {len(entries)}")
    block = np.zeros(1, dtype=BLOCK)
    block["magic"] = MAGIC
    block["dump_id"] = np.void(dump_id)
    block["index"] = index
    block["count"] = len(entries)
    block["entries"][0, : len(entries)] = entries
    block["checksum"] = block_checksum(block.tobytes())
    return block.tobytes()


def build_table(entries: Entries, dump_id: bytes) -> bytes:
    """A whole table, for converters; the C core writes the table of a live dump itself."""
    blocks = range(block_count(len(entries)))
    step = BLOCK_ENTRIES
    return b"".join(build_block(entries[i * step : (i + 1) * step], dump_id, i) for i in blocks)
