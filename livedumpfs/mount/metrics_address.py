# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a host serves its metrics by HTTP: [ADDR:]PORT, and the socket that listens there."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final

from livedumpfs.errors import HostError, UsageError, os_cause

_FORM: Final = re.compile(r"(?:(?:\[([^][]+)\]|([^:\[\]]+)):)?(\d{1,5})", re.ASCII)
_LOOPBACK: Final = "127.0.0.1"
_BACKLOG: Final = 16
"""Connections that wait in the kernel. More are not answered there."""
_HINTS: Final = {
    errno.EADDRINUSE: "another program listens there; port 0 takes a free one",
    errno.EADDRNOTAVAIL: "no interface of this computer has that address",
    errno.EACCES: "a port below 1024 needs root or CAP_NET_BIND_SERVICE",
}


@dataclass(frozen=True)
class MetricsAddress:
    """An IP address and a port of TCP."""

    address: str = _LOOPBACK
    port: int = 0
    """0: one that is free."""

    @classmethod
    def read(cls, text: str) -> MetricsAddress:
        """[ADDR:]PORT; ADDR is an IPv4 address, or an IPv6 address in brackets. UsageError."""
        found = _FORM.fullmatch(text)
        port = int(found[3]) if found else -1
        if found is None or port > 0xFFFF:
            raise UsageError(
                f"{text!r} is not [ADDR:]PORT (9105, 127.0.0.1:9105 or [::1]:9105)",
                errno=errno.EINVAL,
            )
        try:
            if found[1]:
                return cls(str(ipaddress.IPv6Address(found[1])), port)
            return cls(str(ipaddress.IPv4Address(found[2] or _LOOPBACK)), port)
        except ValueError:
            raise UsageError(
                f"{found[1] or found[2]!r} is not an IP address", errno=errno.EINVAL
            ) from None

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    def listen(self) -> socket.socket:
        """A socket that listens there, and does not block. HostError: it cannot be had."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        try:
            found = socket.create_server((self.address, self.port), family=family, backlog=_BACKLOG)
        except OSError as error:
            code = error.errno or errno.EIO
            raise HostError(
                f"cannot serve metrics at {self}: {os_cause(code)}",
                errno=code,
                hint=_HINTS.get(code, ""),
            ) from error
        found.setblocking(False)
        return found


def metrics_url(listener: socket.socket) -> str:
    """What a scrape asks for."""
    address, port = listener.getsockname()[:2]
    return f"http://{MetricsAddress(address, port)}/metrics"
