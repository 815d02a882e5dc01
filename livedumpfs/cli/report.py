# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host's dump has come to, printed, and the exit code that goes with it."""

from __future__ import annotations

from typing import Any

from livedumpfs.abi import Verdict
from livedumpfs.cli import text
from livedumpfs.cli.outcome import Exit, complain
from livedumpfs.cli.output import say
from livedumpfs.client import Client, Status
from livedumpfs.errors import LivedumpError


def print_pause(status: Status) -> None:
    """The line after START."""
    say(f"machine stopped for {text.pause(status.counters)}, and runs on")


def conclude(client: Client, status: Status, name: str | None = None) -> int:
    """A finished dump: its figures, its verdict, and what went wrong. `name`: what to call its
    target."""
    verdict = status.verdict.name.lower()
    stats = _stats(client)
    lost = text.pages(stats["lost_pages"])
    rows = [row for row in text.counter_rows(status.counters) if row[0] != "pause"]
    target = name or status.target
    say(text.table([*rows, ("lost", lost), ("target", target or "none"), ("verdict", verdict)]))
    if status.verdict is Verdict.CONSISTENT:
        return Exit.DONE
    if stats["failure"]:
        complain(stats["failure"].replace(status.target or "\0", target or ""))
        return Exit.NOT_VALID
    where = f"dump on {target}" if target else "snapshot in memory"
    complain(f"the {where} is {verdict}: {text.count(status.counters['lost'], 'granule')} lost")
    return Exit.NOT_VALID


def _stats(client: Client) -> dict[str, Any]:
    """What is only shown; a verdict stands without it."""
    try:
        return client.stats()
    except LivedumpError:
        return {"lost_pages": [], "failure": None}
