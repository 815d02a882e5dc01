# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor against a server that answers as it likes."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu.monitor import Monitor

GREETING = {"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}}
WAIT_S = 300.0


class Server:
    """Answers {} to everything, a state to query-status, and nothing to what is in `silent`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.state = "running"
        self.silent: set[str] = set()
        self.refused: set[str] = set()
        self.seen: list[str] = []
        self.news = threading.Condition()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                with sock, contextlib.suppress(OSError):
                    self._talk(sock)

    def _talk(self, sock: socket.socket) -> None:
        sock.sendall(json.dumps(GREETING).encode() + b"\n")
        decoder, text = json.JSONDecoder(), ""
        while part := sock.recv(4096):
            text += part.decode()
            while text:
                # Nothing stands between two requests, and none of these is cut in two.
                request, end = decoder.raw_decode(text)
                text = text[end:].lstrip()
                self._take(sock, request)

    def _take(self, sock: socket.socket, request: dict[str, str]) -> None:
        command = request["execute"]
        with self.news:
            self.seen.append(command)
            self.news.notify_all()
        if command not in self.silent:
            event = {"event": "STOP", "data": {}, "timestamp": {"seconds": 1, "microseconds": 0}}
            answer = {"id": request.get("id"), **self._answer(command)}
            if command != "qmp_capabilities":
                sock.sendall(json.dumps(event).encode() + b"\n")
            sock.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, command: str) -> dict[str, object]:
        if command in self.refused:
            return {"error": {"class": "GenericError", "desc": "not now"}}
        if command == "query-status":
            return {"return": {"status": self.state, "running": self.state == "running"}}
        return {"return": {}}

    def wait_for(self, *commands: str) -> None:
        """Until these were the last ones that came."""
        with self.news:
            came = self.news.wait_for(lambda: self.seen[-len(commands) :] == [*commands], WAIT_S)
            assert came, self.seen

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(str(tmp_path / "qmp"))
    yield server
    server.close()


def test_a_stop_that_is_late_is_undone_in_order(server: Server) -> None:
    with Monitor(server.path) as monitor:
        server.silent = {"stop"}
        with pytest.raises(MachineError, match="does not answer 'stop' within") as caught:
            monitor.stop(timeout=0.1)
        assert caught.value.errno == errno.ETIMEDOUT
        server.wait_for("query-status", "stop", "cont")
        # It holds nothing: neither this nor its end says cont once more.
        monitor.cont()
    assert server.seen.count("cont") == 1


def test_nothing_is_stopped_when_the_pause_is_over(server: Server) -> None:
    """As when we stood still ourselves before it."""
    with Monitor(server.path) as monitor:
        with pytest.raises(MachineError, match="no time left") as caught:
            monitor.stop(until=time.monotonic())
        assert caught.value.errno == errno.ETIMEDOUT
        monitor.cont()
    assert server.seen == ["qmp_capabilities", "query-status"]


def test_a_stop_that_is_refused_is_undone_too(server: Server) -> None:
    server.refused = {"stop"}
    with Monitor(server.path) as monitor:
        with pytest.raises(MachineError, match="refuses 'stop': not now") as caught:
            monitor.stop()
        assert caught.value.errno == errno.EINVAL
        server.wait_for("query-status", "stop", "cont")


@pytest.mark.parametrize("state", ["running", "suspended"])
def test_what_may_run_is_stopped_and_let_go_once(server: Server, state: str) -> None:
    server.state = state
    with Monitor(server.path) as monitor:
        monitor.stop()
        monitor.cont()
        monitor.cont()
    assert server.seen == ["qmp_capabilities", "query-status", "stop", "cont"]


@pytest.mark.parametrize("state", ["paused", "prelaunch", "io-error", "shutdown"])
def test_what_stands_still_is_left_alone(server: Server, state: str) -> None:
    server.state = state
    with Monitor(server.path) as monitor:
        monitor.stop()
        monitor.cont()
    assert server.seen == ["qmp_capabilities", "query-status"]


def test_a_cont_that_is_refused_is_owed(server: Server) -> None:
    with Monitor(server.path) as monitor:
        monitor.stop()
        server.refused = {"cont"}
        with pytest.raises(MachineError, match="refuses 'cont'"):
            monitor.cont()
        server.refused = set()
        monitor.cont()
    assert server.seen[-3:] == ["stop", "cont", "cont"]


def test_an_end_lets_go(server: Server) -> None:
    with Monitor(server.path) as monitor:
        monitor.stop()
    assert server.seen[-2:] == ["stop", "cont"]


def test_a_state_that_is_none(server: Server) -> None:
    server.state = None  # type: ignore[assignment]
    with Monitor(server.path) as monitor, pytest.raises(MachineError, match="no state"):
        monitor.stop()


def test_a_server_that_is_none(tmp_path: Path) -> None:
    path = str(tmp_path / "other")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(MachineError, match="does not greet") as caught:
            Monitor(path, 0.1)
        assert caught.value.errno == errno.ETIMEDOUT
        connection, _ = listener.accept()
        connection.close()

        def talk() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"SSH-2.0\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(MachineError, match="QEMU's monitor: ") as caught:
            Monitor(path, WAIT_S)
        assert caught.value.errno == errno.EPROTO
        thread.join(WAIT_S)
        assert not thread.is_alive()
