# SPDX-License-Identifier: GPL-2.0-or-later
"""Gate: the way of readers in C to a dump that may be freed meanwhile."""

from __future__ import annotations

from livedumpfs.core.capi import CData, ffi, lib


class Gate:
    """Any thread may call anything."""

    def __init__(self, dump: CData) -> None:
        """`dump`: a struct ldfs_dump. MemoryError."""
        made = lib.ldfs_gate_new(dump)
        if made == ffi.NULL:
            raise MemoryError("no memory for a gate")
        self.handle: CData = ffi.gc(made, lib.ldfs_gate_free)
        """struct ldfs_gate: what refers to it keeps it, too."""

    def close(self) -> bool:
        """Let no reader in from now on. True: none is inside any more; False: ask again."""
        return bool(lib.ldfs_gate_close(self.handle) == 0)
