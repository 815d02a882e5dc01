# SPDX-License-Identifier: GPL-2.0-or-later
"""The little of HTTP that a scrape needs: one request and one answer on each connection."""

from __future__ import annotations

import http.client
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

END: Final = b"\r\n\r\n"
LONGEST: Final = 8192
"""Bytes of a request, without a body, which it does not have."""
METRICS: Final = "/metrics"
_TEXT: Final = "text/plain; charset=utf-8"
_ROOT: Final = b"livedumpfs: the metrics of this host are at /metrics\n"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scraped:
    """What is served at /metrics."""

    render: Callable[[], bytes]
    content_type: str

    def answer(self, head: bytes) -> bytes:
        """The whole answer to a request: its bytes up to and with END, or LONGEST of them without
        one. Never fails for what a client has sent."""
        status, allow = _judge(head), ""
        body, kind = f"{status} {status.phrase}\n".encode(), _TEXT
        if status is HTTPStatus.OK and _path(head) == METRICS:
            status, body, kind = self._metrics()
        elif status is HTTPStatus.OK:
            body = _ROOT
        elif status is HTTPStatus.METHOD_NOT_ALLOWED:
            allow = "Allow: GET\r\n"
        lines = (
            f"HTTP/1.1 {status} {status.phrase}\r\nDate: {formatdate(usegmt=True)}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n{allow}"
            "Connection: close\r\n\r\n"
        )
        return lines.encode() + body

    def _metrics(self) -> tuple[HTTPStatus, bytes, str]:
        try:
            return HTTPStatus.OK, self.render(), self.content_type
        except Exception:
            log.exception("the metrics cannot be had")
            return HTTPStatus.INTERNAL_SERVER_ERROR, b"the metrics cannot be had\n", _TEXT


def _judge(head: bytes) -> HTTPStatus:
    if not head.endswith(END):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    line, _, rest = head.partition(b"\r\n")
    words = line.split(b" ")
    if len(words) != 3 or not all(words) or not words[2].startswith(b"HTTP/"):
        return HTTPStatus.BAD_REQUEST
    if not words[2].startswith(b"HTTP/1."):
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    try:
        http.client.parse_headers(io.BytesIO(rest))
    except http.client.HTTPException:  # too many
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    if words[0] != b"GET":
        return HTTPStatus.METHOD_NOT_ALLOWED
    return HTTPStatus.OK if _path(head) in (METRICS, "/") else HTTPStatus.NOT_FOUND


def _path(head: bytes) -> str:
    """Without a query."""
    return head.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1")
