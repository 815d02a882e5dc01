# SPDX-License-Identifier: GPL-2.0-or-later
"""What is answered to one request for metrics: only what is asked for rightly, and any bytes are
answered."""

from __future__ import annotations

import http.client
import io

import pytest
from hypothesis import given
from hypothesis import strategies as some

from livedumpfs.mount.scrape import END, LONGEST, Scraped

TEXT = "text/plain; charset=utf-8"
FORM = "text/plain; version=0.0.4; charset=utf-8"
METRICS = b"livedumpfs_slots 3.0\n"


def answered(head: bytes, scraped: Scraped | None = None) -> http.client.HTTPResponse:
    """As the standard library's client reads it."""
    made = (scraped or Scraped(lambda: METRICS, FORM)).answer(head)

    class Connection:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(made)

    found = http.client.HTTPResponse(Connection())  # type: ignore[arg-type]
    found.begin()
    return found


def asked(line: str, *headers: str) -> http.client.HTTPResponse:
    return answered("\r\n".join([line, *headers, "", ""]).encode())


@pytest.mark.parametrize("line", ["GET /metrics HTTP/1.1", "GET /metrics?x=1 HTTP/1.0"])
def test_the_metrics(line: str) -> None:
    found = asked(line, "Host: x", "Accept: application/openmetrics-text", "Connection: keep-alive")
    assert (found.status, found.read()) == (200, METRICS)
    assert found.headers["Content-Type"] == FORM
    assert found.headers["Connection"] == "close"


def test_the_root_has_a_line() -> None:
    found = asked("GET / HTTP/1.1", "Host: x")
    assert (found.status, found.headers["Content-Type"]) == (200, TEXT)
    said = found.read().decode()
    assert "/metrics" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /metricsx HTTP/1.1", 404),
        ("GET //metrics HTTP/1.1", 404),
        ("GET /../metrics HTTP/1.1", 404),
        ("GET http://x/metrics HTTP/1.1", 404),
        ("GET /favicon.ico HTTP/1.1", 404),
        ("HEAD /metrics HTTP/1.1", 405),
        ("POST /metrics HTTP/1.1", 405),
        ("get /metrics HTTP/1.1", 405),
        ("GET /metrics HTTP/2.0", 505),
        ("PRI * HTTP/2.0", 505),
        ("GET /metrics", 400),
        ("GET  /metrics HTTP/1.1", 400),
        ("GET /metrics FTP/1.1", 400),
        ("", 400),
    ],
)
def test_anything_else_is_refused(line: str, status: int) -> None:
    found = asked(line)
    assert found.status == status
    assert (found.headers["Allow"] == "GET") == (status == 405)
    assert METRICS not in found.read()


def test_one_that_is_too_long() -> None:
    assert answered(b"G" * LONGEST).status == 431
    assert asked("GET /metrics HTTP/1.1", *(["X: y"] * 200)).status == 431


def test_metrics_that_cannot_be_had(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> bytes:
        raise KeyError("/a/path")

    found = answered(b"GET /metrics HTTP/1.1" + END, Scraped(fail, FORM))
    assert (found.status, found.read()) == (500, b"the metrics cannot be had\n")
    assert "KeyError" in caplog.text


@given(some.binary(max_size=200))
def test_any_bytes_are_answered(data: bytes) -> None:
    found = answered(data.replace(END, b"") + END)
    assert found.status in (200, 400, 404, 405, 431, 505)
    found.read()
