# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints the backend that `auto` was with 0, 1, 2 ... free descriptors, until it is sigbus; "none"
where INIT was refused. Each time in an arena of its own, whose userfaultfd is not made yet."""

from __future__ import annotations

import json
import os
import resource

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.errors import LivedumpError
from livedumpfs.machines.machine import InProcess

SIZE = 8 << 20
MOST = 32


def backend_with(free: int) -> str:
    with Arena(SIZE) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        next_one = os.dup(0)
        os.close(next_one)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_one + free, hard))
        try:
            live.init(None, DumpSettings(backend="auto"))
        except (LivedumpError, OSError):
            return "none"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        live.start()
        arena.live[0] = 2
        live.release()
        return live.settings.backend


def main() -> None:
    InProcess.best_backend = lambda _: "auto"  # type: ignore[method-assign]
    found: list[str] = []
    while "sigbus" not in found and len(found) < MOST:
        found.append(backend_with(len(found)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
