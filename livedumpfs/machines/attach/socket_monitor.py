# SPDX-License-Identifier: GPL-2.0-or-later
"""SocketMonitor: a monitor of QEMU that is a Unix socket."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import Final

from livedumpfs.errors import MachineError
from livedumpfs.machines.attach.guest_monitor import GuestMonitor, LifelineWay, OnEvent
from livedumpfs.machines.qemu.monitor import Monitor

_CONNECT_S: Final = 10.0
_QEMUS: Final = ("qemu", "kvm")


class SocketMonitor(Monitor, GuestMonitor):
    """One connection. No other program can use this monitor meanwhile."""

    def __init__(self, path: str, on_event: OnEvent) -> None:
        """MachineError: none listens at `path`, or it is another client's."""
        super().__init__(path, _CONNECT_S, on_event=on_event, listens=True)
        self.place = os.path.abspath(path)
        self.whose = os.path.realpath(path)
        self.pid = _peer(self.fileno())

    def for_lifeline(self) -> LifelineWay:
        """A copy of the socket. MachineError: it is closed."""
        if self.fileno() < 0:
            raise MachineError("the connection to QEMU is closed", errno=errno.ENOTCONN)
        return LifelineWay(["socket", str(self.fileno())], [self.fileno()])


def _peer(fd: int) -> int:
    """Number of the QEMU that listens at the other end of a Unix socket; 0: that is not known, as
    where another process has made the socket for it."""
    sock = socket.socket(fileno=os.dup(fd))
    with sock, contextlib.suppress(OSError):
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid = int(struct.unpack("3i", found)[0])
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return pid if file.read().startswith(_QEMUS) else 0
    return 0
