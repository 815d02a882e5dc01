# SPDX-License-Identifier: GPL-2.0-or-later
"""snapshot/ of a mount: the files of the dump that there is, from START to RELEASE."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from livedumpfs.dump import LiveDump, Snapshot
from livedumpfs.formats.snapshot_files import SnapshotFiles, standard_images
from livedumpfs.linux.kcore import kcore_image

_SECOND: Final = 1_000_000_000


@dataclass(frozen=True)
class Shown:
    """snapshot/ of one dump."""

    files: SnapshotFiles
    number: int
    """Of the dump, from 1 on, among those of its host."""
    instant_ns: int
    """When the memory was so, in nanoseconds since the epoch."""
    changed_ns: int
    """The same, but in a later second than that of the host's dump before: rsync and others compare
    whole seconds, and would take this dump for that one."""


class SnapshotTree:
    """Files that belong to one dump for good: past its RELEASE they give ENODATA."""

    def __init__(self, dump: LiveDump) -> None:
        self._dump = dump
        self._lock = threading.Lock()
        self._made: tuple[Snapshot, Shown] | None = None
        self._last_second = 0

    def shown(self) -> Shown | None:
        """Of the dump that there is; None: none was started."""
        with self._lock:
            # Asked for within: a thread that waited for its turn would bring back what has gone.
            try:
                snapshot = self._dump.snapshot
            except OSError:
                self._made = None
                return None
            made = self._made
            if made is None or made[0] is not snapshot:
                made = self._made = (snapshot, self._make(snapshot))
            return made[1]

    def _make(self, snapshot: Snapshot) -> Shown:
        shown = (snapshot.machine, snapshot.size, snapshot.registers)
        files = SnapshotFiles(
            standard_images(*shown),
            snapshot.open_image,
            snapshot.describe,
            make_kcore=kcore_image(*shown),
        )
        changed = max(snapshot.instant_ns, (self._last_second + 1) * _SECOND)
        self._last_second = changed // _SECOND
        return Shown(files, snapshot.generation, snapshot.instant_ns, changed)
