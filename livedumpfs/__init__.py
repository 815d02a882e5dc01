# SPDX-License-Identifier: GPL-2.0-or-later
"""A consistent memory dump of a running machine without stopping it.

The public names, loaded when first asked for::

    from livedumpfs import Arena, LiveDump, WriterLock

    with Arena("1GiB") as arena:
        state = arena.zeros((1000, 1000), name="state")
        writers = WriterLock()  # each thread that writes does so in `with writers:`
        LiveDump(arena, writers=writers).save("state.elf")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from livedumpfs.core.arena import Arena
    from livedumpfs.core.saved_arena import SavedOpen
    from livedumpfs.dump import DumpSettings, LiveDump
    from livedumpfs.dumpfile import open_dump
    from livedumpfs.errors import InconsistentDump
    from livedumpfs.headers import get_include
    from livedumpfs.named.load_one import load_array
    from livedumpfs.named.saved_group import open_arrays
    from livedumpfs.step_barrier import StepBarrier
    from livedumpfs.writer_lock import WriterLock

__all__ = [
    "Arena",
    "DumpSettings",
    "InconsistentDump",
    "LiveDump",
    "StepBarrier",
    "WriterLock",
    "__version__",
    "get_include",
    "load_array",
    "open_arrays",
    "open_dump",
]

_WHERE = {
    "Arena": "livedumpfs.core.arena",
    "DumpSettings": "livedumpfs.dump",
    "InconsistentDump": "livedumpfs.errors",
    "LiveDump": "livedumpfs.dump",
    "StepBarrier": "livedumpfs.step_barrier",
    "WriterLock": "livedumpfs.writer_lock",
    "get_include": "livedumpfs.headers",
    "load_array": "livedumpfs.named.load_one",
    "open_arrays": "livedumpfs.named.saved_group",
    "open_dump": "livedumpfs.dumpfile",
}


def __getattr__(name: str) -> object:
    """Load a public name at its first use. The client commands need none of these names, and start
    faster without their imports."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(_WHERE[name]), name)
    if name == "Arena":  # so that Arena.load takes paths: the core itself knows no files
        from livedumpfs.core.saved_arena import open_paths_by

        open_paths_by(_open)
    return found


def _open(path: str) -> SavedOpen:
    from livedumpfs.named.load_one import open_any

    return open_any(path)
