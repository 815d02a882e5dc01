# SPDX-License-Identifier: GPL-2.0-or-later
"""HostLog: the life of a host and of each of its dumps as records with fields, for a journal.

One thing that happens is one record. docs/metrics.md has the fields; tests/unit/test_host_log.py
holds it to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from livedumpfs import pause
from livedumpfs.dump import DumpEvent, Happened
from livedumpfs.errors import printable
from livedumpfs.mount.journal import Fields, FieldValue
from livedumpfs.units import PAGE_SIZE, format_size

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
"""Priorities of syslog(3)."""
MESSAGE_IDS: Final = {
    "host-start": "1fedbe103dfd48b7943433b1d6ed6834",
    "mount-lost": "f1604e69fa4845da839da0896946d902",
    "host-end": "cf9e176d6a5f451781f671280717e15d",
    Happened.INIT.value: "bbd33319823f462086b234391d772b34",
    Happened.START.value: "4cffecb92fd84987a4968af4d3fadf38",
    Happened.FINISH.value: "5f69ef5422cf49ecb67494eafafdc784",
    Happened.RELEASE.value: "f99b86432d844c448ffcc7fabca829a2",
    Happened.FAILED.value: "f14aa22cdad34b6cbbc40b58f5c13e0d",
}
"""LIVEDUMP_EVENT -> MESSAGE_ID, by which the journal finds all records of a kind."""
_BY_VERDICT: Final = {"consistent": NOTICE, "torn": WARNING, "incomplete": ERROR}


class HostLog:
    """Of one host. Any thread may tell it something; what `write` does, it does at once."""

    def __init__(self, write: Callable[[Fields], None], mountpoint: str, machine: str) -> None:
        """`write`: takes a record, and neither waits nor raises. `machine`: its kind."""
        self._write = write
        self._host: dict[str, FieldValue] = {
            "LIVEDUMP_MOUNTPOINT": mountpoint,
            "LIVEDUMP_MACHINE": machine,
        }
        self._has_started = False
        self._judged: tuple[bytes, str | None] = b"", None
        """The dump that came to its FINISH last, and its verdict there."""

    def started(self) -> None:
        """The machine runs, and its mount is served."""
        where = self._host["LIVEDUMP_MOUNTPOINT"]
        self._put("host-start", INFO, f"{self._host['LIVEDUMP_MACHINE']}: running at {where}")

        self._has_started = True

    def lost_mount(self, said: str) -> None:
        """The mount was taken away, and the machine runs on; in one sentence."""
        self._put("mount-lost", WARNING, said)

    def ended(self, problems: str) -> None:
        """The host has ended. `problems`: what went wrong, in one sentence; "": nothing."""
        if problems:
            self._put("host-end", ERROR, f"ended: {problems}", {"LIVEDUMP_REASON": problems})
        elif self._has_started:
            self._put("host-end", INFO, "ended")

    def note(self, event: DumpEvent) -> None:
        """An observer of dumps."""
        say = _SENTENCES[event.what]
        self._put(event.what.value, self._priority(event), say(event), _fields(event))

    def _priority(self, event: DumpEvent) -> int:
        """A RELEASE that says no more than FINISH has said is nothing new."""
        if event.what is Happened.FAILED:
            return ERROR
        known, now = self._judged, (event.dump_id, event.verdict)
        if event.what is Happened.FINISH:
            self._judged = now
        elif event.what is not Happened.RELEASE or now == known or event.verdict is None:
            return INFO
        return _BY_VERDICT[event.verdict or "incomplete"]

    def _put(self, what: str, priority: int, message: str, fields: Fields | None = None) -> None:
        self._write(
            {
                "MESSAGE": printable(message),
                "MESSAGE_ID": MESSAGE_IDS[what],
                "PRIORITY": priority,
                "LIVEDUMP_EVENT": what,
                **self._host,
                **(fields or {}),
            }
        )


def _fields(event: DumpEvent) -> Fields:
    """Those that it has."""
    counters = event.counters
    found: dict[str, FieldValue | None] = {
        "LIVEDUMP_DUMP_ID": event.dump_id.hex(),
        "LIVEDUMP_TARGET": event.target,
        "LIVEDUMP_VERDICT": event.verdict,
        "LIVEDUMP_REASON": event.reason,
        "LIVEDUMP_RELEASED": event.released,
        "LIVEDUMP_STEP": event.step,
        "ERRNO": event.errno,
    }
    if counters.instant_wall_ns:
        found |= {
            "LIVEDUMP_INSTANT_NS": counters.instant_wall_ns,
            "LIVEDUMP_PAUSE_NS": counters.pause_ns,
            "LIVEDUMP_QUIESCE_NS": counters.quiesce_ns,
            "LIVEDUMP_ARM_NS": counters.arm_ns,
            "LIVEDUMP_RESUME_NS": counters.resume_ns,
        }
    if event.what in (Happened.FINISH, Happened.RELEASE):
        found |= {
            "LIVEDUMP_LOST_PAGES": counters.lost * counters.granule_size // PAGE_SIZE,
            "LIVEDUMP_FAULTS": counters.faults,
            "LIVEDUMP_WRITTEN_BYTES": counters.bytes_written,
        }
    return {
        name: value
        for name, value in found.items()
        if value is not None and value != "" and (name != "ERRNO" or value)
    }


# ------------------------------------------------------------------------- sentences


def _name(event: DumpEvent) -> str:
    return f"dump {event.dump_id.hex()}"


def _init(event: DumpEvent) -> str:
    return f"{_name(event)}: INIT, {f'to {event.target}' if event.target else 'in memory'}"


def _start(event: DumpEvent) -> str:
    return f"{_name(event)}: START, pause {pause.text(asdict(event.counters)) or 'not known'}"


def _finish(event: DumpEvent) -> str:
    where = f"on {event.target}" if event.target else "in memory"
    why = f": {event.reason}" if event.reason else ""
    written = format_size(event.counters.bytes_written)
    return f"{_name(event)}: {event.verdict} {where}, {written} written{why}"


def _release(event: DumpEvent) -> str:
    verdict = f", {event.verdict}" if event.verdict else ""
    return f"{_name(event)}: {event.released or 'released'}{verdict}"


def _failed(event: DumpEvent) -> str:
    of = f"{_name(event)}: " if event.dump_id else ""
    return f"{of}{event.step} failed: {event.reason}"


_SENTENCES: Final[dict[Happened, Callable[[DumpEvent], str]]] = {
    Happened.INIT: _init,
    Happened.START: _start,
    Happened.FINISH: _finish,
    Happened.RELEASE: _release,
    Happened.FAILED: _failed,
}
