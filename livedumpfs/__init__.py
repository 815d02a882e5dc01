# SPDX-License-Identifier: GPL-2.0-or-later
"""A consistent memory dump of a running machine without stopping it.

The public names, loaded when first asked for::

    from livedumpfs import Arena, LiveDump, open_dump

    with Arena("1GiB") as arena:
        state = arena.array("f8", (1000, 1000), name="state")
        LiveDump(arena, quiesce=stop_writers, resume=go_on).save("state.elf")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from livedumpfs.core.arena import Arena
    from livedumpfs.dump import DumpSettings, LiveDump
    from livedumpfs.dumpfile import open_dump
    from livedumpfs.errors import InconsistentDump
    from livedumpfs.headers import get_include

__all__ = [
    "Arena",
    "DumpSettings",
    "InconsistentDump",
    "LiveDump",
    "__version__",
    "get_include",
    "open_dump",
]

_WHERE = {
    "Arena": "livedumpfs.core.arena",
    "DumpSettings": "livedumpfs.dump",
    "InconsistentDump": "livedumpfs.errors",
    "LiveDump": "livedumpfs.dump",
    "get_include": "livedumpfs.headers",
    "open_dump": "livedumpfs.dumpfile",
}


def __getattr__(name: str) -> object:
    """Load a public name at its first use. The client commands need none of these names, and start
    faster without their imports."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
