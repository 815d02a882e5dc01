# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests to QEMU over a socket that another process has used before. Standard library alone: for
lifeline_program.py."""

from __future__ import annotations

import errno
import json
import select
import socket
import time
from typing import Any

_PATIENCE_S = 10.0
"""For one answer. It may still come after that, and is skipped then."""
_PIECE = 1 << 16


class RefusedRequest(OSError):
    """QEMU has answered that it will not."""


class Requests:
    """Of the only process that now reads the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sent = 0
        self._text = b""
        self._end = 0.0
        self._waiting: dict[str, str] = {}
        self.late: set[str] = set()
        """Commands that QEMU has carried out after the time for an answer."""
        self.resumed = False
        """QEMU has let the guest run since this was made."""

    def ask(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        """What QEMU returns. RefusedRequest; TimeoutError; another OSError: QEMU has gone."""
        self._sent += 1
        self._end = time.monotonic() + _PATIENCE_S
        number = f"livedump-lifeline-{self._sent}"
        self._waiting[number] = command
        request: dict[str, object] = {"execute": command, "id": number}
        if arguments is not None:
            request["arguments"] = arguments
        # First a newline and 0xff: what the dead process has sent may be half a request.
        self._send(b"\xff\n" + json.dumps(request).encode() + b"\n")
        while True:
            answer = self._message()
            self.resumed |= answer.get("event") == "RESUME"
            asked = self._waiting.pop(str(answer.get("id")), None)
            if asked and answer.get("id") != number and "return" in answer:
                self.late.add(asked)
            if answer.get("id") == number:
                if "return" not in answer:
                    raise RefusedRequest(errno.EINVAL, str(answer.get("error")))
                return answer["return"]

    def _wait(self, events: int) -> None:
        poll = select.poll()
        poll.register(self._sock, events)
        left = self._end - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "QEMU does not answer")

    def _send(self, data: bytes) -> None:
        while data:
            self._wait(select.POLLOUT)
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                continue

    def _message(self) -> dict[str, Any]:
        while True:
            while b"\n" not in self._text:
                self._receive()
            line, _, self._text = self._text.partition(b"\n")
            try:
                found = json.loads(line)
            except ValueError:  # the rest of what the dead process has read in part
                continue
            if isinstance(found, dict):
                return found

    def _receive(self) -> None:
        self._wait(select.POLLIN)
        try:
            part = self._sock.recv(_PIECE)
        except BlockingIOError:
            return
        if not part:
            raise ConnectionResetError(errno.ECONNRESET, "QEMU has gone")
        self._text += part
