# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system with one file, `disk`, whose I/O fails, stalls or fills up on command.

As a program: faulty_disk.py MOUNTPOINT BYTES serves it until it is unmounted. It is told what to do
by files beside the disk: writing "eio 3145728" to `fault` makes all writes from there on fail.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from livedumpfs.proc import proc_text

DEADLINE_S = 300.0
FAULTS = ("none", "eio", "once", "enospc", "slow", "hang", "mute", "sync", "short", "direct")
"""What writes do, from the offset given with it: as they should; EIO; EIO for one write only;
ENOSPC; take 20 ms; end with the next command only; succeed, but reads end with the next command
only; succeed, but no fsync does; EIO after a part; EINVAL through O_DIRECT."""


class FaultyDisk:
    """The mount as a test sees it."""

    def __init__(self, mountpoint: Path, process: subprocess.Popen[bytes]) -> None:
        self.mountpoint, self.process = mountpoint, process
        self.file = mountpoint / "disk"

    def fault(self, kind: str, offset: int = 0) -> None:
        assert kind in FAULTS
        (self.mountpoint / "fault").write_text(f"{kind} {offset}")

    def hits(self) -> int:
        """Calls that met the fault since the command."""
        return int((self.mountpoint / "hits").read_text())


def is_mounted(mountpoint: Path) -> bool:
    return f" {mountpoint} " in proc_text("/proc/self/mountinfo")


@contextlib.contextmanager
def faulty_disk(mountpoint: Path, size: int) -> Iterator[FaultyDisk]:
    mountpoint.mkdir()
    process = subprocess.Popen(
        [sys.executable, __file__, str(mountpoint), str(size)], stdin=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + DEADLINE_S
        while not is_mounted(mountpoint):
            assert process.poll() is None and time.monotonic() < end, "the faulty disk is not there"
            time.sleep(0.02)
        disk = FaultyDisk(mountpoint, process)
        try:
            yield disk
        finally:
            disk.fault("none")
    finally:
        if is_mounted(mountpoint):
            subprocess.run(["fusermount", "-uz", str(mountpoint)], check=False, timeout=300)
        try:
            process.wait(DEADLINE_S)
        finally:
            process.kill()
            process.wait(DEADLINE_S)


# -------------------------------------------------------------------------- the program


def serve(mountpoint: str, size: int) -> None:
    import fuse

    # Until it is sealed and after it a dump is the same faulty file.
    files = ("/disk", "/disk.incomplete")

    class Disk(fuse.Operations):  # type: ignore[misc]
        def __init__(self) -> None:
            self.memory = bytearray(size)
            self.kind, self.offset, self.hits = "none", 0, 0
            self.changed = threading.Condition()

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
            length = len(self.memory) if path in files else len(str(self.hits))
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": length}

        def open(self, path: str, flags: int) -> int:
            return int(bool(flags & os.O_DIRECT))

        def read(self, path: str, length: int, offset: int, fh: int) -> bytes:
            if path in files and offset >= self.offset:
                self._wait_while("mute")
            source = self.memory if path in files else str(self.hits).encode()
            return bytes(source[offset : offset + length])

        def truncate(self, path: str, length: int, fh: int | None = None) -> None:
            if path in files:
                del self.memory[length:]
                self.memory.extend(bytes(length - len(self.memory)))

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            if path == "/fault":
                self._command(data.decode())
                return len(data)
            if self.kind == "direct" and fh:
                self.hits += 1
                raise fuse.FuseOSError(errno.EINVAL)
            if offset >= self.offset:
                data = self._meet(data)
            self.memory.extend(bytes(max(0, offset - len(self.memory))))
            self.memory[offset : offset + len(data)] = data
            return len(data)

        def rename(self, old: str, new: str) -> None:
            assert (old, new) == files[::-1]

        def fsync(self, path: str, datasync: int, fh: int) -> None:
            if self.kind == "sync":
                self.hits += 1
                raise fuse.FuseOSError(errno.EIO)

        def _command(self, text: str) -> None:
            with self.changed:
                kind, offset = text.split()
                self.kind, self.offset, self.hits = kind, int(offset), 0
                self.changed.notify_all()

        def _wait_while(self, kind: str) -> None:
            with self.changed:
                self.hits += self.kind == kind
                self.changed.wait_for(lambda: self.kind != kind)

        def _meet(self, data: bytes) -> bytes:
            with self.changed:
                kind = self.kind
                if kind not in ("none", "sync", "mute", "hang", "direct"):
                    self.hits += 1
                if kind == "once":
                    self.kind = "none"
            self._wait_while("hang")
            if kind == "slow":
                time.sleep(0.02)
            if kind in ("eio", "once"):
                raise fuse.FuseOSError(errno.EIO)
            if kind == "short":
                if len(data) > 4096:
                    return data[: len(data) // 2]
                raise fuse.FuseOSError(errno.EIO)
            if kind == "enospc":
                raise fuse.FuseOSError(errno.ENOSPC)
            return data

    # Direct I/O: the file's own users get each error with the write that it belongs to.
    fuse.FUSE(Disk(), mountpoint, foreground=True, direct_io=True, big_writes=True, fsname="disk")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    serve(sys.argv[1], int(sys.argv[2]))
