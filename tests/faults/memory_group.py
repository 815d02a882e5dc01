# SPDX-License-Identifier: GPL-2.0-or-later
"""A memory cgroup of a test's own, v1 or v2: a process that joins it is killed for memory that the
group does not have, and no other process is."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

DEADLINE_S = 300.0
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class MemoryGroup:
    def __init__(self, path: Path) -> None:
        self.path = path
        v1 = (path / "memory.usage_in_bytes").exists()
        self.limit_file = path / ("memory.limit_in_bytes" if v1 else "memory.max")
        self.usage_file = path / ("memory.usage_in_bytes" if v1 else "memory.current")
        self.no_limit = "-1" if v1 else "max"

    def join(self) -> None:
        """This process is of the group from now on."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def usage(self) -> int:
        return int(self.usage_file.read_text())

    def limit(self, size: int | None) -> None:
        """Bytes; None: none."""
        self.limit_file.write_text(self.no_limit if size is None else str(size))


def own_group() -> Path | None:
    """Where this process is; None: no hierarchy with memory is mounted in the usual place."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        mount = V1 if "memory" in controllers.split(",") else None if controllers else V2
        name = "memory.limit_in_bytes" if mount == V1 else "cgroup.controllers"
        if mount:
            # In a container the path may mean nothing: then the mount itself is the group.
            places = (mount / group.lstrip("/"), mount)
            found = next((place for place in places if (place / name).exists()), None)
            if found:
                return found
    return None


@contextlib.contextmanager
def memory_group(name: str) -> Iterator[MemoryGroup]:
    """OSError: none can be made here; the sentence says why."""
    above = own_group()
    if above is None:
        raise OSError("no memory cgroup is mounted")
    path = above / f"livedump-test-{os.getpid()}-{name}"
    path.mkdir()
    try:
        group = MemoryGroup(path)
        if not group.limit_file.exists():
            raise OSError(f"{above} gives its groups no memory limit (cgroup.subtree_control)")
        yield group
    finally:
        end = time.monotonic() + DEADLINE_S
        while True:  # a process that has just ended may still be in it
            try:
                path.rmdir()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
