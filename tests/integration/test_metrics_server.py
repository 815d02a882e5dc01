# SPDX-License-Identifier: GPL-2.0-or-later
"""MetricsServer over real sockets: clients that send nothing, slowly or too much, many at once, and
an end that waits for none of them."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from livedumpfs.mount import metrics_server
from livedumpfs.mount.metrics_address import MetricsAddress
from livedumpfs.mount.metrics_server import MOST, MetricsServer
from livedumpfs.mount.scrape import LONGEST

DEADLINE_S = 300.0
LONG_S = 3600.0
METRICS = b"livedumpfs_slots 3.0\n" * 1000
Served = Callable[..., tuple[MetricsServer, tuple[str, int]]]


@pytest.fixture
def serve() -> Iterator[Served]:
    """serve(render) -> the server, and its address."""
    with contextlib.ExitStack() as stack:

        def start(
            render: Callable[[], bytes] = lambda: METRICS,
        ) -> tuple[MetricsServer, tuple[str, int]]:
            listener = MetricsAddress().listen()
            server = stack.enter_context(MetricsServer(listener, render))
            address = listener.getsockname()
            server.start()
            return server, address

        yield start


def scrape(address: tuple[str, int], path: str = "/metrics") -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection(*address, timeout=DEADLINE_S)) as client:
        client.request("GET", path)
        found = client.getresponse()
        return found.status, found.read()


def connected(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=DEADLINE_S)


def rest(client: socket.socket) -> bytes:
    """Until the server hangs up."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while more := client.recv(1 << 16):
            found += more
    return found


def threads() -> int:
    return sum(one.name == "livedump-metrics" for one in threading.enumerate())


def test_a_scrape(serve: Served) -> None:
    _, address = serve()
    for _ in range(3):
        assert scrape(address) == (200, METRICS)
    assert scrape(address, "/")[0] == 200
    assert scrape(address, "/x")[0] == 404


def test_idle_clients_make_room_and_take_no_thread(
    serve: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest does, and no time has passed for it."""
    monkeypatch.setattr(metrics_server, "PATIENCE_S", LONG_S)
    _, address = serve()
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(address)) for _ in range(2 * MOST)]
        for one in idle:
            one.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert scrape(address) == (200, METRICS)
        assert threads() == 1
        for one in idle[: MOST + 1]:
            assert rest(one) == b""
        newest = idle[-1]
        newest.sendall(b"\r\n")
        assert rest(newest).endswith(METRICS)
    assert scrape(address) == (200, METRICS)


@pytest.mark.parametrize("sent", [b"", b"GET /met"])
def test_a_client_has_so_much_time_and_no_more(
    serve: Served, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """However often it sends something."""
    monkeypatch.setattr(metrics_server, "PATIENCE_S", 0.2)
    _, address = serve()
    with connected(address) as slow:
        slow.sendall(sent)
        until = time.monotonic() + DEADLINE_S
        with contextlib.suppress(ConnectionError):
            slow.settimeout(0.01)
            while time.monotonic() < until:
                try:
                    if not slow.recv(1):
                        break
                except TimeoutError:
                    slow.sendall(b"x")
        assert time.monotonic() < until, "it is still connected"
    monkeypatch.setattr(metrics_server, "PATIENCE_S", LONG_S)
    assert scrape(address) == (200, METRICS)


def test_a_client_that_reads_nothing_holds_up_no_other(serve: Served) -> None:
    _, address = serve(lambda: bytes(64 << 20))
    with connected(address) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert scrape(address, "/")[0] == 200


def test_a_request_that_is_too_long_is_answered(serve: Served) -> None:
    """The answer arrives although the client has sent more than was read."""
    _, address = serve()
    with connected(address) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"y" * (4 * LONGEST))
        client.shutdown(socket.SHUT_WR)
        assert rest(client).startswith(b"HTTP/1.1 431 ")
    assert scrape(address) == (200, METRICS)


def test_a_client_that_goes_leaves_nothing(serve: Served) -> None:
    server, address = serve()
    for _ in range(3):
        with connected(address) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert scrape(address) == (200, METRICS)
    until = time.monotonic() + DEADLINE_S
    while server._clients:
        assert time.monotonic() < until, server._clients
        time.sleep(0.01)


def test_metrics_that_fail_do_not_end_it(serve: Served) -> None:
    broken = [True]

    def render() -> bytes:
        if broken:
            raise OSError(5, "x")
        return METRICS

    _, address = serve(render)
    assert scrape(address)[0] == 500
    broken.clear()
    assert scrape(address) == (200, METRICS)


def test_the_end_hangs_up_and_the_port_is_free(serve: Served) -> None:
    server, address = serve()
    with connected(address) as idle:
        idle.sendall(b"GET /")
        scrape(address)
        server.close()
        assert rest(idle) == b""
    assert threads() == 0
    with pytest.raises(ConnectionRefusedError):
        connected(address)
    with MetricsAddress(*address).listen():
        pass
    server.close()


def test_the_end_does_not_wait_for_a_machine_that_hangs(serve: Served) -> None:
    """`render` returns only after close() has."""
    asked, closed = threading.Event(), threading.Event()

    def hang() -> bytes:
        asked.set()
        assert closed.wait(DEADLINE_S)
        return METRICS

    server, address = serve(hang)
    with connected(address) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert asked.wait(DEADLINE_S)
        server.close()
        with pytest.raises(ConnectionRefusedError):
            connected(address)
        closed.set()
        server._thread.join(DEADLINE_S)
        assert threads() == 0


def test_one_that_was_never_started_frees_its_port() -> None:
    listener = MetricsAddress().listen()
    address = listener.getsockname()
    MetricsServer(listener, lambda: METRICS).close()
    with MetricsAddress(*address).listen():
        pass
