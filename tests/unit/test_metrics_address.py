# SPDX-License-Identifier: GPL-2.0-or-later
"""Where `--metrics` listens: what is an address, and what is said of one that cannot be had."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from livedumpfs.errors import HostError, UsageError
from livedumpfs.mount.metrics_address import MetricsAddress, metrics_url
from tests.fixtures.ipv6 import has_ipv6
from tests.fixtures.program_files import program_command

UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
PRIVILEGED_PORT = 80


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("9105", "127.0.0.1", 9105),
        ("0", "127.0.0.1", 0),
        ("65535", "127.0.0.1", 65535),
        ("127.0.0.2:9105", "127.0.0.2", 9105),
        ("0.0.0.0:1", "0.0.0.0", 1),
        ("[::1]:9105", "::1", 9105),
        ("[0:0::1]:9105", "::1", 9105),
    ],
)
def test_read(text: str, address: str, port: int) -> None:
    found = MetricsAddress.read(text)
    assert found == MetricsAddress(address, port)
    assert MetricsAddress.read(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "-1", "65536", "99999", "999999", ":9105", "127.0.0.1", "127.0.0.1:", "1.2.3:9105",
        "1.2.3.4.5:9", "256.0.0.1:9", "localhost:9105", "::1:9105", "[::1]", "[::1]9105", "[x]:1",
        "[127.0.0.1]:9105", "127.0.0.1:9105 ", " 9105", "9105\n", "+9105", "9_1", "٩١", "0x50",
    ],
)  # fmt: skip
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        MetricsAddress.read(text)
    assert "\n" not in str(refused.value)


def test_it_listens_on_the_loopback_address_alone() -> None:
    with MetricsAddress.read("0").listen() as listener:
        address, port = listener.getsockname()
        assert address == "127.0.0.1" and port
        assert metrics_url(listener) == f"http://127.0.0.1:{port}/metrics"
        assert not listener.getblocking() and not listener.get_inheritable()
        with socket.create_connection((address, port), timeout=60):
            pass


@pytest.mark.skipif(not has_ipv6, reason="no IPv6 here")
def test_ipv6_alone() -> None:
    with MetricsAddress.read("[::1]:0").listen() as listener:
        port = listener.getsockname()[1]
        assert metrics_url(listener) == f"http://[::1]:{port}/metrics"
        with socket.create_connection(("::1", port), timeout=60):
            pass
        with MetricsAddress("127.0.0.1", port).listen():
            pass


def test_a_port_in_use() -> None:
    with MetricsAddress().listen() as first:
        taken = MetricsAddress("127.0.0.1", first.getsockname()[1])
        with pytest.raises(HostError) as refused:
            taken.listen()
    assert str(refused.value) == (
        f"cannot serve metrics at {taken}: Address already in use (another program listens there; "
        "port 0 takes a free one)"
    )


def test_an_address_of_another_computer() -> None:
    with pytest.raises(HostError, match="no interface of this computer has that address"):
        MetricsAddress("192.0.2.1", 0).listen()  # RFC 5737: of no computer


@pytest.mark.skipif(
    int(UNPRIVILEGED.read_text()) <= PRIVILEGED_PORT, reason=f"{UNPRIVILEGED} lets each user"
)
def test_a_privileged_port_is_refused() -> None:
    command = program_command(__file__, "privileged_port.py", str(PRIVILEGED_PORT))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == (
        f"cannot serve metrics at 127.0.0.1:{PRIVILEGED_PORT}: Permission denied "
        "(a port below 1024 needs root or CAP_NET_BIND_SERVICE)\n"
    )
