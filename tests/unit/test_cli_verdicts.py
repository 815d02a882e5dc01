# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands say of a dump that is not whole, when, and with which exit code."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from livedumpfs import abi
from livedumpfs.abi import State, Verdict
from livedumpfs.cli import conclusion
from livedumpfs.cli import status_command as status
from livedumpfs.cli.bar import Bar
from livedumpfs.cli.connect import follow
from livedumpfs.cli.outcome import Exit
from livedumpfs.cli.progress import Display, Lines
from livedumpfs.client import DumpStatus

GIB = 1 << 30
GRANULE = 65536
Capture = pytest.CaptureFixture[str]


def status_of(state: State, *, lost: int = 0, left: int = 0, **more: Any) -> DumpStatus:
    """Of a dump of 1 GiB, with so many granules lost, and not final."""
    granules = GIB // GRANULE
    counters = dict.fromkeys(abi.STATUS_COUNTERS, 0)
    counters |= {
        "granules": granules, "granule_size": GRANULE, "lost": lost, "remaining": left,
    }  # fmt: skip
    known: dict[str, Any] = {
        "verdict": Verdict.NONE,
        "so_far": Verdict.TORN if lost else Verdict.CONSISTENT,
        "target": "/dev/loop7",
        **more,
    }
    return DumpStatus(
        state=state, settings={"policy": "block", "format": "elf"}, bytes_total=GIB,
        bytes_done=GIB - (lost + left) * GRANULE, failure=None, ended=abi.Ended.NOT,
        counters=counters, **known,
    )  # fmt: skip


class FakeClient:
    """A host's answers, one after the other."""

    def __init__(self, answers: list[DumpStatus], reason: str | None = None) -> None:
        self.answers = answers
        self.reason = reason

    def progress(self, *, timeout: float | None = None) -> Iterator[DumpStatus]:
        del timeout
        yield from self.answers

    def status(self) -> DumpStatus:
        return self.answers[-1]

    def pages(self) -> bytes:
        return b"SF..L"

    def stats(self) -> dict[str, Any]:
        return {"reason": self.reason, "lost_pages": [[1, 2]], "settings": {"pool": 1 << 20}}


def client(*answers: DumpStatus, reason: str | None = None) -> Any:
    return FakeClient(list(answers), reason)


SWEEPING = [
    status_of(State.SWEEP, left=9000),
    status_of(State.SWEEP, left=8000, lost=1),
    status_of(State.SWEEP, left=100, lost=15_000),
    status_of(State.FINISH, lost=16_079, verdict=Verdict.INCOMPLETE, so_far=Verdict.INCOMPLETE),
]


def shown(kind: str, stream: io.StringIO) -> Display:
    if kind == "lines":
        return Lines("dump", stream, iter(range(100)).__next__)
    return Bar("dump", Console(file=stream, force_terminal=True, width=200))


@pytest.mark.parametrize("kind", ["lines", "bar"])
def test_the_first_lost_page_is_told_at_once_and_once(kind: str) -> None:
    stream = io.StringIO()
    with shown(kind, stream) as display:
        first = follow(client(SWEEPING[0], reason="the disk is full"), display)
        assert "warning" not in stream.getvalue() and not first.broken
        follow(client(*SWEEPING[:2], reason="the disk is full"), display)
        said = "livedump: warning: the dump on /dev/loop7 is torn so far, 1 granule lost: the disk"
        assert said in stream.getvalue(), "before the dump has ended"
        follow(client(*SWEEPING, reason="x"), display)
    assert stream.getvalue().count("warning") == 2


def test_what_is_lost_is_never_done() -> None:
    stream = io.StringIO()
    follow(client(*SWEEPING, reason="x"), Lines("dump", stream, iter(range(9)).__next__))
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("dump   1%, 19.06 MiB of 1 GiB") and last.endswith("1005 MiB lost")
    assert "1 GiB of 1 GiB" not in stream.getvalue()
    assert status._done(SWEEPING[-1]) == "19.06 MiB of 1 GiB, 1005 MiB lost"
    stream = io.StringIO()
    with shown("bar", stream) as display:
        follow(client(*SWEEPING, reason="x"), display)
    assert "19.1/1024.0 MiB" in stream.getvalue() or "0.0/1.0 GiB" in stream.getvalue()


def test_what_is_lost_is_not_waited_for() -> None:
    stream = io.StringIO()
    with Lines("dump", stream, iter((0.0, 10.0)).__next__) as display:
        display.update(0, GIB, 0)
        display.update(GIB // 4, GIB, GIB // 2)
    assert "10 s to go" in stream.getvalue().splitlines()[-1]


@pytest.mark.parametrize("verdict", [Verdict.TORN, Verdict.INCOMPLETE])
@pytest.mark.parametrize("target", ["/dev/loop7", None])
def test_a_finished_dump_that_is_not_consistent_is_3(
    verdict: Verdict, target: str | None, capsys: Capture
) -> None:
    last = status_of(State.FINISH, lost=3, verdict=verdict, so_far=verdict, target=target)
    assert conclusion.conclude(client(last, reason="no room"), last) == Exit.NOT_VALID
    out, err = capsys.readouterr()
    word = verdict.name.lower()
    where = "dump on /dev/loop7" if target else "snapshot in memory"
    assert f"verdict   {word}\n" in out
    assert err == f"livedump: error: the {where} is {word}, 3 granules lost: no room\n"


def test_a_snapshot_in_memory_has_a_verdict_so_far(capsys: Capture) -> None:
    last = status_of(State.FINISH, target=None)
    assert conclusion.conclude(client(last), last) == Exit.DONE
    assert "verdict   consistent so far" in capsys.readouterr().out


AFTER = status_of(State.UNINIT, lost=1, verdict=Verdict.TORN, so_far=Verdict.TORN, target=None)
CUT = status_of(State.UNINIT, left=5, verdict=Verdict.INCOMPLETE, so_far=Verdict.INCOMPLETE)
WHOLE = status_of(State.UNINIT, verdict=Verdict.CONSISTENT)


@pytest.mark.parametrize(
    ("before", "after", "code", "said"),
    [
        (status_of(State.START, lost=1, target=None), AFTER, 3, "error: the snapshot in memory is"),
        (status_of(State.START, target=None), replace(WHOLE, target=None), 0, ""),
        (status_of(State.FINISH, verdict=Verdict.CONSISTENT), WHOLE, 0, ""),
        (SWEEPING[-1], replace(SWEEPING[-1], state=State.UNINIT), 3, "error: the dump on /dev/l"),
        (SWEEPING[0], CUT, 0, "incomplete: it was released before it was sealed"),
        (AFTER, AFTER, 0, ""),  # there was nothing to release
    ],
)
def test_a_release_says_what_the_dump_was_worth(
    before: DumpStatus, after: DumpStatus, code: int, said: str, capsys: Capture
) -> None:
    assert conclusion.released(client(after, reason="too much"), before) == code
    _, err = capsys.readouterr()
    assert said in err and (err == "") == (said == "")


def test_what_a_snapshot_may_take(capsys: Capture) -> None:
    small = status_of(State.START, target=None)
    small = replace(small, settings={"policy": "spill", "spill_limit": GIB // 2})
    conclusion.note_room(client(small), small)
    assert "may take 512 MiB of memory" in (err := capsys.readouterr().err)
    assert "beyond that is lost" in err
    large = replace(small, settings={"policy": "spill", "spill_limit": GIB})
    conclusion.note_room(client(small), large)
    assert "lost" not in capsys.readouterr().err
    conclusion.note_room(client(small), replace(small, settings={"policy": "fail"}))
    assert "may take 1 MiB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("released", "expired", "said"),
    [
        (None, None, ""),
        ("released by process 5 of user 0 in state START", None, "by process 5 of user 0 in st"),
        (
            "released by the host in state START",
            "released: older than 1 s",
            "START: older than 1 s",
        ),
    ],
)
def test_how_a_dump_ended_is_one_row(released: str | None, expired: str | None, said: str) -> None:
    found = status._released({"released": released, "expired": expired})
    assert said in found and (found == "") == (said == "")
