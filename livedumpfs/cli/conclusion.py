# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host's dump has come to, printed, and the exit code that goes with it."""

from __future__ import annotations

from typing import Any

from livedumpfs import pause
from livedumpfs.abi import State, Verdict
from livedumpfs.cli import text
from livedumpfs.cli.outcome import Exit, complain, note
from livedumpfs.cli.output import say
from livedumpfs.client import Client, DumpStatus
from livedumpfs.errors import LivedumpError
from livedumpfs.units import format_size


def print_pause(status: DumpStatus) -> None:
    """The line after START."""
    say(f"machine stopped for {pause.text(status.counters)}, and runs on")


def verdict(status: DumpStatus) -> str:
    """The verdict, or what it is so far; "" when there is none."""
    if status.known is Verdict.NONE:
        return ""
    final = status.verdict is not Verdict.NONE
    return status.known.name.lower() + ("" if final else " so far")


def broken(client: Client, status: DumpStatus, name: str | None = None) -> str:
    """Of a dump that is not consistent: what it is, and why, in one sentence. `name`: what to call
    its target."""
    target = name or status.target
    where = f"dump on {target}" if target else "snapshot in memory"
    why = _stats(client)["reason"] or "it was released before its end"
    why = why.replace(status.target or "\0", target or "")
    return f"the {where} is {verdict(status)}{_lost(status)}: {why}"


def _lost(status: DumpStatus) -> str:
    lost = status.counters["lost"]
    return f", {text.count(lost, 'granule')} lost" if lost else ""


def _stats(client: Client) -> dict[str, Any]:
    """What is only shown; a verdict stands without it."""
    try:
        return client.stats()
    except LivedumpError as error:
        return {"lost_pages": [], "failure": None, "reason": str(error)}


def conclude(client: Client, status: DumpStatus, name: str | None = None) -> int:
    """A finished dump: its figures, its verdict, and what went wrong. `name`: what to call its
    target."""
    stats = _stats(client)
    lost = text.pages(stats["lost_pages"])
    rows = [row for row in text.counter_rows(status.counters) if row[0] != "pause"]
    target = name or status.target
    ends = [("lost", lost), ("target", target or "none"), ("verdict", verdict(status))]
    say(text.table([*rows, *ends]))
    if status.known is Verdict.CONSISTENT:
        if stats.get("failure"):  # good, but not where it was to be
            complain(stats["failure"])
            return Exit.FAILED
        return Exit.DONE
    complain(broken(client, status, name))
    return Exit.NOT_VALID


def released(client: Client, before: DumpStatus) -> int:
    """After RELEASE of a dump that was as in `before`: its verdict for good when that is not
    "consistent". What was cut off by the RELEASE alone was to be cut off."""
    status = client.status()
    if before.state in (State.UNDEFINED, State.UNINIT) or not status.broken:
        return Exit.DONE
    if before.broken:
        complain(broken(client, status))
        return Exit.NOT_VALID
    note(f"the dump on {status.target} is incomplete: it was released before it was sealed")
    return Exit.DONE


def note_room(client: Client, status: DumpStatus) -> None:
    """What a snapshot without a target may take, and what then."""
    spills = status.settings["policy"] == "spill"
    limit = status.settings["spill_limit"] if spills else client.stats()["settings"]["pool"]
    more = "" if limit >= status.bytes_total else (
        "; what the machine overwrites beyond that is lost, and `livedump status` says so"
    )  # fmt: skip
    note(f"the snapshot may take {format_size(limit)} of memory, until `livedump release`{more}")
