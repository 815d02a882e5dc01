# SPDX-License-Identifier: GPL-2.0-or-later
"""`list` without a store: the hosts that run here, and what each does."""

from __future__ import annotations

import argparse
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from livedumpfs.cli import text
from livedumpfs.cli.facts import tell_facts
from livedumpfs.cli.outcome import Exit, note, sentence
from livedumpfs.cli.output import say
from livedumpfs.client import Client, DumpStatus
from livedumpfs.errors import LivedumpError
from livedumpfs.hosts import registry
from livedumpfs.hosts.device import may_use
from livedumpfs.thread import start_thread

ANSWER_S: Final = 3.0
"""Seconds that all hosts together have to answer: one may hang."""
_NOT_FOR_YOU: Final = "not for this user"
_SILENT: Final = "does not answer"


@dataclass
class Seen:
    """A host, and what it has answered."""

    entry: registry.Entry
    status: DumpStatus | None = None
    problem: str = ""
    """Why there is no status."""

    def ask(self) -> None:
        """On a thread of its own."""
        try:
            with Client(self.entry.device) as client:
                self.status, self.problem = client.status(), ""
        except (LivedumpError, OSError) as error:
            self.problem = sentence(error)

    def row(self) -> tuple[str, ...]:
        """For people."""
        entry, status = self.entry, self.status
        first = (entry.name, str(entry.pid), entry.machine)
        if status is None:
            return (*first, "-", "-", "-", self.problem)
        total = status.bytes_total
        done = f"{status.bytes_done * 100 // total}%" if total and status.target else "-"
        return (*first, status.state.name, done, _verdict(status), status.target or "-")

    def facts(self) -> dict[str, Any]:
        """For programs."""
        entry, status = self.entry, self.status
        found = {
            "name": entry.name,
            "pid": entry.pid,
            "machine": entry.machine,
            "device": entry.device,
            "problem": self.problem or None,
        }
        if status is None:
            return found
        return {
            **found,
            "state": status.state.name,
            "target": status.target,
            "verdict": status.verdict.name.lower() if status.verdict else None,
            "so_far": status.so_far.name.lower() if status.so_far else None,
            "bytes_total": status.bytes_total,
            "bytes_done": status.bytes_done,
            "bytes_lost": status.lost,
        }


def _verdict(status: DumpStatus) -> str:
    if not status.known:
        return "-"
    return status.known.name.lower() + ("" if status.verdict else " so far")


def hosts_here() -> list[Seen]:
    """All that are alive, by their names. One that hangs holds nothing up."""
    found = [Seen(entry) for entry in registry.running()]
    threads = []
    for one in found:
        one.problem = _SILENT if may_use(one.entry) else _NOT_FOR_YOU
        if one.problem == _SILENT:
            thread = threading.Thread(target=one.ask, name="livedump-list", daemon=True)
            start_thread(thread)
            threads.append(thread)
    end = time.monotonic() + ANSWER_S
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return sorted(found, key=lambda one: (one.entry.name, one.entry.pid))


def list_hosts(args: argparse.Namespace) -> int:
    """Print them. A host that does not answer is no failure of this command."""
    found = hosts_here()
    if args.json:
        return tell_facts("list", {"hosts": [one.facts() for one in found]})
    if not found:
        note("no host is running (start one with `livedump host`)")
        return Exit.DONE
    head = ("host", "pid", "machine", "state", "done", "verdict", "target")
    say(text.columns([head, *(one.row() for one in found)]))
    return Exit.DONE
