# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpRecord: what a list of dumps shows, so that it need not read their images."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from livedumpfs.errors import InvalidDump
from livedumpfs.formats.superblock import VerdictWord
from livedumpfs.formats.typed import Natural, typed


class DumpRecord(msgspec.Struct, kw_only=True, frozen=True):
    """Of one dump. The image's own superblock and meta data say the same, and count."""

    dump_id: str
    """32 hexadecimal digits."""
    verdict: VerdictWord
    machine: str = ""
    """Machine.name: a kind, such as "qemu"."""
    identity: str = ""
    """Which machine of that kind it is on this computer: name and UUID of a QEMU that has them,
    else where its host is mounted; "": not known."""
    host: str = ""
    """Name of the computer."""
    instant_ns: Natural = 0
    """The snapshot instant, since the epoch; 0: the dump does not say it."""
    image_size: Natural = 0
    """Bytes of the image."""
    memory_size: Natural = 0
    """Bytes of the machine's memory."""
    new_bytes: Natural = 0
    """Bytes that the dump added to the store, compressed."""
    new_chunks: Natural = 0
    since: str = ""
    """Dump id of the dump of which unchanged chunks were taken without being read; "": all was
    read."""

    def pack(self) -> bytes:
        """As JSON. Not by msgspec, which refuses names that are not UTF-8."""
        return json.dumps(msgspec.to_builtins(self), indent=2).encode() + b"\n"


def parse_record(data: bytes) -> DumpRecord:
    """InvalidDump: it is none."""
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidDump(f"it is not JSON: {error}") from error
    return typed(found, DumpRecord, "record of the dump")
