# SPDX-License-Identifier: GPL-2.0-or-later
"""snapshot/ of a mount: the files of the dump that there is, from START to RELEASE."""

from __future__ import annotations

import threading

from livedumpfs.dump import LiveDump, Snapshot
from livedumpfs.snapshot import SnapshotFiles, standard_images


class SnapshotTree:
    """Files that belong to one dump for good: whoever holds them past its RELEASE gets ENODATA."""

    def __init__(self, dump: LiveDump) -> None:
        self._dump = dump
        self._lock = threading.Lock()
        self._made: tuple[Snapshot, SnapshotFiles] | None = None

    def files(self) -> SnapshotFiles | None:
        """Of the dump that there is; None: none was started."""
        try:
            snapshot = self._dump.snapshot
        except OSError:
            self._made = None
            return None
        with self._lock:
            if self._made is None or self._made[0] is not snapshot:
                self._made = (snapshot, self._make(snapshot))
            return self._made[1]

    def _make(self, snapshot: Snapshot) -> SnapshotFiles:
        images = standard_images(snapshot.machine, snapshot.size, snapshot.registers)
        return SnapshotFiles(images, snapshot.read_into, snapshot.describe)
