# SPDX-License-Identifier: GPL-2.0-or-later
"""Journal, with a real datagram socket in the place of journald: records as its protocol has them,
and a host that never waits for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from livedumpfs.errors import HostError
from livedumpfs.mount import journal
from livedumpfs.mount.journal import LONGEST, UNLOGGED, Journal, encode
from tests.fixtures.journald import Journald, decode


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    with Journald(tmp_path / "socket") as one:
        yield one


def test_the_bytes_of_the_protocol() -> None:
    """As systemd's document has them: one line is text, any other value has its length."""
    assert encode({"MESSAGE": "one line", "PRIORITY": 6}) == b"MESSAGE=one line\nPRIORITY=6\n"
    two = encode({"MESSAGE": "one\ntwo"})
    assert two == b"MESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\n"
    assert encode({"MESSAGE": ""}) == b"MESSAGE=\n"


def test_a_record(journald: Journald) -> None:
    with Journal(str(journald.path)) as log:
        log.send({"MESSAGE": "x", "PRIORITY": 3, "LIVEDUMP_TARGET": "/a = b"})
    assert journald.take() == {
        "MESSAGE": b"x", "PRIORITY": b"3", "LIVEDUMP_TARGET": b"/a = b",
        "SYSLOG_IDENTIFIER": b"livedump",
    }  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        "x\nPRIORITY=0\nMESSAGE=all is well\n", "\n", "\n\n", "a\0b", "=", "PRIORITY=0",
        os.fsdecode(b"/tmp/\xff\xfe\n"), "\ud800", "\x1b[2J\u202e", "\r\n",
    ],
)  # fmt: skip
def test_a_hostile_value_makes_no_field(journald: Journald, value: str) -> None:
    with Journal(str(journald.path)) as log:
        log.send({"LIVEDUMP_TARGET": value, "PRIORITY": 6})
    found = journald.take()
    assert set(found) == {"LIVEDUMP_TARGET", "PRIORITY", "SYSLOG_IDENTIFIER"}
    assert found["PRIORITY"] == b"6"
    lone = value == "\ud800"
    assert found["LIVEDUMP_TARGET"] == (b"\\ud800" if lone else os.fsencode(value))


@given(some.dictionaries(some.sampled_from(["A", "B_1", "C"]), some.text(max_size=50)))
def test_what_is_encoded_is_decoded(fields: dict[str, str]) -> None:
    assert decode(encode(fields)) == {
        name: value.encode(errors="backslashreplace" if _is_odd(value) else "surrogateescape")
        for name, value in fields.items()
    }


def _is_odd(text: str) -> bool:
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return True
    return False


@pytest.mark.parametrize("name", ["", "a", "_PID", "1A", "A B", "A=", "A\n", "A" * 65, "Ä"])
def test_a_name_that_the_journal_does_not_take(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a field"):
        encode({name: "x"})


@pytest.mark.parametrize("unit", ["x", "ä", "€", "𝄞", "\n", "ab\n€"])
def test_a_value_that_is_too_long_is_cut_and_says_so(journald: Journald, unit: str) -> None:
    """Also as many of them as a record has."""
    value = unit * (1 << 20)
    size = len(value.encode())
    names = [f"LIVEDUMP_{i}" for i in range(8)]
    with Journal(str(journald.path)) as log:
        log.send({"MESSAGE": "short", **dict.fromkeys(names, value)})
    found = journald.take()
    assert found["MESSAGE"] == b"short"
    for name in names:
        kept, _, mark = found[name].partition(b"... (")
        assert mark == b"%d bytes in all)" % size
        assert LONGEST - 3 <= len(found[name]) <= LONGEST
        assert value.startswith(kept.decode())  # whole characters
    with Journal(str(journald.path)) as log:
        log.send({"MESSAGE": "y" * LONGEST})
    assert journald.take()["MESSAGE"] == b"y" * LONGEST


def test_a_journal_that_takes_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """What it did not take is counted in the next record."""
    with Journald(tmp_path / "socket") as full, Journal(str(full.path)) as log:
        sent = 0
        while not log._dropped:
            log.send({"MESSAGE": f"{sent}", "LIVEDUMP_TARGET": "x" * LONGEST})
            sent += 1
        log.send({"MESSAGE": "dropped, too"})
        kept = [full.take() for _ in range(sent - 1)]
        assert [one["MESSAGE"] for one in kept] == [b"%d" % i for i in range(sent - 1)]
        log.send({"MESSAGE": "again"})
        assert full.take() == {
            "MESSAGE": b"again", "SYSLOG_IDENTIFIER": b"livedump", UNLOGGED: b"2",
        }  # fmt: skip
        log.send({"MESSAGE": "and again"})
        assert UNLOGGED not in full.take()


def test_a_journal_that_is_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Journald(path) as first:
        log = Journal(str(path))
        log.send({"MESSAGE": "1"})
        assert first.take()["MESSAGE"] == b"1"
    with log:
        log.send({"MESSAGE": "2"})  # there is none
        path.unlink()
        log.send({"MESSAGE": "3"})
        with Journald(path) as second:
            log.send({"MESSAGE": "4"})
            found = second.take()
            assert (found["MESSAGE"], found[UNLOGGED]) == (b"4", b"2")


def test_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "none"))
    with pytest.raises(HostError) as refused:
        Journal()
    assert str(refused.value) == (
        f"cannot log to systemd's journal: {tmp_path / 'none'}: No such file or directory"
    )
    stream = tmp_path / "stream"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(stream))
        with pytest.raises(HostError, match="Protocol wrong type"):
            Journal(str(stream))
