# SPDX-License-Identifier: GPL-2.0-or-later
"""HostLog: one record for each thing that happens, with the fields and priorities of
docs/metrics.md."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from livedumpfs.dump import Counters, DumpEvent, Happened
from livedumpfs.mount.host_log import MESSAGE_IDS, HostLog
from livedumpfs.mount.journal import IDENTIFIER, UNLOGGED, Fields, encode

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/metrics.md").read_text()
ID = bytes(range(16))
AT_START = Counters(
    granule_size=8192, instant_wall_ns=7, pause_ns=60_000, quiesce_ns=1000, arm_ns=50_000,
    resume_ns=2000,
)  # fmt: skip
AT_END = Counters(
    granule_size=8192, instant_wall_ns=7, pause_ns=60_000, lost=3, faults=4, bytes_written=1 << 20
)


@pytest.fixture
def records() -> list[Fields]:
    return []


@pytest.fixture
def log(records: list[Fields]) -> HostLog:
    return HostLog(records.append, "/run/livedump/vm1", "ledger")


def finish(verdict: str, **more: object) -> DumpEvent:
    return DumpEvent(
        Happened.FINISH, ID, "/dev/loop0", verdict, counters=AT_END, **more  # type: ignore[arg-type]
    )  # fmt: skip


def release(verdict: str | None, released: str = "released by x in state FINISH") -> DumpEvent:
    return DumpEvent(
        Happened.RELEASE, ID, "/dev/loop0", verdict, released=released, counters=AT_END  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_life_of_a_host_and_a_dump(log: HostLog, records: list[Fields]) -> None:
    log.started()
    log.note(DumpEvent(Happened.INIT, ID, "/dev/loop0"))
    log.note(DumpEvent(Happened.START, ID, "/dev/loop0", counters=AT_START))
    log.note(finish("consistent"))
    log.note(release("consistent"))
    log.ended("")
    dump = f"dump {ID.hex()}"
    assert [one["MESSAGE"] for one in records] == [
        "ledger: running at /run/livedump/vm1",
        f"{dump}: INIT, to /dev/loop0",
        f"{dump}: START, pause 60 us (quiesce 1 us, arm 50 us, resume 2 us, other 7 us)",
        f"{dump}: consistent on /dev/loop0, 1 MiB written",
        f"{dump}: released by x in state FINISH, consistent",
        "ended",
    ]
    events = ["host-start", "init", "start", "finish", "release", "host-end"]
    assert [one["LIVEDUMP_EVENT"] for one in records] == events
    assert [one["MESSAGE_ID"] for one in records] == [MESSAGE_IDS[one] for one in events]
    assert [one["PRIORITY"] for one in records] == [6, 6, 6, 5, 6, 6]
    assert {one["LIVEDUMP_MOUNTPOINT"] for one in records} == {"/run/livedump/vm1"}
    assert {one.get("LIVEDUMP_DUMP_ID", ID.hex()) for one in records} == {ID.hex()}
    assert [one.get("LIVEDUMP_VERDICT") for one in records] == [
        None, None, None, "consistent", "consistent", None,
    ]  # fmt: skip
    start, end = records[2], records[3]
    assert (start["LIVEDUMP_PAUSE_NS"], start["LIVEDUMP_INSTANT_NS"]) == (60_000, 7)
    assert (end["LIVEDUMP_LOST_PAGES"], end["LIVEDUMP_WRITTEN_BYTES"]) == (6, 1 << 20)
    assert not any("ERRNO" in one or "LIVEDUMP_REASON" in one for one in records)


def test_priorities_of_verdicts(log: HostLog, records: list[Fields]) -> None:
    """A release that says nothing new is information; one that ends a dump early is not."""
    for event in (
        finish("torn", reason="3 pages"), release("torn"),
        finish("incomplete", reason="no space", errno=errno.ENOSPC), release("incomplete"),
        release("consistent"), release(None),
    ):  # fmt: skip
        log.note(event)
    log.note(DumpEvent(Happened.RELEASE, b"x" * 16, "/x", "incomplete", released="released early"))
    assert [one["PRIORITY"] for one in records] == [4, 6, 3, 6, 5, 6, 3]
    assert records[2]["ERRNO"] == errno.ENOSPC
    assert records[2]["LIVEDUMP_REASON"] == "no space"
    assert str(records[2]["MESSAGE"]).endswith(": no space")


def test_failures(log: HostLog, records: list[Fields]) -> None:
    log.note(
        DumpEvent(Happened.FAILED, b"", reason="/x: no such file", step="INIT", errno=errno.ENOENT)
    )
    log.lost_mount("/m was unmounted")
    log.ended("cannot unmount")
    assert [one["PRIORITY"] for one in records] == [3, 4, 3]
    assert records[0]["MESSAGE"] == "INIT failed: /x: no such file"
    assert records[0]["LIVEDUMP_STEP"] == "INIT" and "LIVEDUMP_DUMP_ID" not in records[0]
    assert records[2]["LIVEDUMP_REASON"] == "cannot unmount"


def test_a_host_that_never_ran_has_not_ended(log: HostLog, records: list[Fields]) -> None:
    log.ended("")
    assert records == []


def test_a_message_is_one_line_and_a_field_is_what_it_is(
    log: HostLog, records: list[Fields]
) -> None:
    evil = "/tmp/x\nPRIORITY=0\x1b[2J"
    log.note(DumpEvent(Happened.INIT, ID, evil))
    (record,) = records
    assert str(record["MESSAGE"]).isprintable() and "PRIORITY=0" in str(record["MESSAGE"])
    assert record["LIVEDUMP_TARGET"] == evil
    encode(record)


def test_the_document_has_each_event_and_field(log: HostLog, records: list[Fields]) -> None:
    section = DOCUMENT.partition("\n## The journal\n")[2]
    said = dict(re.findall(r"^\| `([a-z-]+)` \| `([0-9a-f]{32})` \|", section, re.MULTILINE))
    assert said == MESSAGE_IDS
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    log.started()
    log.note(DumpEvent(Happened.START, ID, "/x", counters=AT_START))
    log.note(finish("torn", reason="x", errno=5))
    log.note(release("torn"))
    log.note(DumpEvent(Happened.FAILED, b"", reason="x", step="INIT", errno=5))
    cells = re.findall(r"^\| (`[A-Z_`, ]+`) \|", section, re.MULTILINE)
    documented = {name for cell in cells for name in re.findall(r"`([A-Z_]+)`", cell)}
    known = {"MESSAGE_ID", "LIVEDUMP_EVENT", "SYSLOG_IDENTIFIER", UNLOGGED}
    assert documented | known == {name for one in records for name in one} | known
    assert f"`{IDENTIFIER}`" in section
