# SPDX-License-Identifier: GPL-2.0-or-later
"""MountFiles: the small files of a host's mount, as a client reads and writes them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import Any

from livedumpfs.errors import LivedumpError
from livedumpfs.hosts.device import unreachable


class MountFiles:
    """Each method raises a LivedumpError: the file is not there, or the host is dead."""

    mountpoint: str

    def stats(self) -> dict[str, Any]:
        """stats.json: all counters, the histogram, the settings."""
        found: dict[str, Any] = json.loads(self.read("stats.json"))
        return found

    def bases(self) -> list[bytes]:
        """Ids of the dumps since which the host knows what has changed, the newest first."""
        return [bytes.fromhex(line) for line in self.read("control/bases").decode().split()]

    def tracked_bases(self) -> list[bytes] | None:
        """The same, of a host that tracks (control/track); None: it does not, or is too old to."""
        with contextlib.suppress(LivedumpError):
            if self.read("control/track").strip() == b"1":
                return self.bases()
        return None

    def pages(self) -> bytes:
        """The page map of the dump that there is, in letters of page_map; b"": there is none, or
        the host is too old to say."""
        try:
            return self.read("control/pages").strip()
        except LivedumpError as error:
            if error.errno != errno.ENOENT:
                raise
        return b""

    def read(self, name: str) -> bytes:
        """A small file of the mount, e.g. "machine/console"."""
        path = os.path.join(self.mountpoint, name)
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise unreachable(path, error) from error

    def write(self, name: str, value: bytes) -> None:
        """One value to a file of the mount, e.g. "machine/console"."""
        path = os.path.join(self.mountpoint, name)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, value)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise unreachable(path, error) from error
