# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints the result of a host's dump, and gives the exit code for it."""

from __future__ import annotations

from typing import Any, Final

from livedumpfs import pause
from livedumpfs.abi import State, Verdict
from livedumpfs.cli import text
from livedumpfs.cli.facts import tell_facts
from livedumpfs.cli.outcome import Exit, complain, note
from livedumpfs.cli.output import report
from livedumpfs.cli.status_facts import status_facts
from livedumpfs.client import Client, DumpStatus
from livedumpfs.errors import LivedumpError
from livedumpfs.kinds import AUTO
from livedumpfs.units import format_size

_BEYOND: Final = {
    "lose": "; what the machine overwrites beyond that is lost, and `livedump status` says so",
    "hold": "; where the machine overwrites more it waits for the release, until --deadline",
}


def print_pause(status: DumpStatus) -> None:
    """Print the line after START."""
    report(f"machine stopped for {pause.text(status.counters)}, and runs on")


def verdict(status: DumpStatus) -> str:
    """The verdict, or the one that the dump would get now; "" when there is none."""
    if status.known is Verdict.NONE:
        return ""
    final = status.verdict is not Verdict.NONE
    return status.known.name.lower() + ("" if final else " so far")


def broken(client: Client, status: DumpStatus, name: str | None = None, cause: str = "") -> str:
    """One sentence about a dump that is not consistent: its state, and the cause. `name`: of the
    target, if not the host's path. `cause`: what is known here, where the host knows only that its
    pipe broke."""
    target = name or status.target
    where = f"dump on {target}" if target else "snapshot in memory"
    why = cause or _stats(client)["reason"] or "it was released before its end"
    why = why.replace(status.target or "\0", target or "")
    return f"the {where} is {verdict(status)}{_lost(status)}: {why}"


def _lost(status: DumpStatus) -> str:
    lost = status.counters["lost"]
    return f", {text.count(lost, 'granule')} lost" if lost else ""


def _stats(client: Client) -> dict[str, Any]:
    """Statistics for display only; an error does not change the verdict."""
    try:
        return client.stats()
    except LivedumpError as error:
        return {"lost_pages": [], "failure": None, "reason": str(error), "expired": None}


def conclude(
    client: Client,
    status: DumpStatus,
    name: str | None = None,
    cause: str = "",
    *,
    facts_of: str = "",
    all_read: str = "",
) -> int:
    """Print the figures, the verdict and the errors of a finished dump. Returns the exit code.
    `name`, `cause`: see broken(). `facts_of`: print its status for programs, as this command."""
    stats = _stats(client)
    if why := stats.get("increment", {}).get("reason") or all_read:
        note(f"all of the memory was read: {why}")
    code = _concluded(client, status, stats, name, cause)
    if not facts_of:
        return code
    facts = status_facts(status, client.device, stats)
    return tell_facts(facts_of, {**facts, "target": name or status.target}, code)


def _concluded(
    client: Client, status: DumpStatus, stats: dict[str, Any], name: str | None, cause: str
) -> int:
    lost = text.pages(stats["lost_pages"])
    rows = [row for row in text.counter_rows(status.counters) if row[0] != "pause"]
    target = name or status.target
    ends = [("lost", lost), ("target", target or "none"), ("verdict", verdict(status))]
    report(text.table([*rows, *ends]))
    if status.known is Verdict.CONSISTENT:
        if stats.get("failure"):  # the dump is good, but not in its place
            complain(stats["failure"])
            return Exit.FAILED
        return Exit.DONE
    complain(broken(client, status, name, cause))
    return Exit.NOT_VALID


def released(client: Client, before: DumpStatus) -> int:
    """After RELEASE: print the final verdict of the dump with status `before`, when it is not
    "consistent". A dump that is incomplete only because of the RELEASE is no failure."""
    status = client.status()
    if before.state in (State.UNDEFINED, State.UNINIT) or not status.broken:
        return Exit.DONE
    if before.broken:
        complain(broken(client, status))
        return Exit.NOT_VALID
    note(f"the dump on {status.target} is incomplete: it was released before it was sealed")
    return Exit.DONE


def note_room(client: Client, status: DumpStatus) -> None:
    """Tell how much memory a snapshot without a target may take, and what happens then."""
    settings = client.stats()["settings"]
    fixed = status.settings["policy"] != "spill" and settings["pool"] != AUTO
    limit = settings["pool"] if fixed else status.settings["spill_limit"]
    more = "" if limit >= status.bytes_total else _BEYOND[settings.get("at_limit", "lose")]
    note(f"the snapshot may take {format_size(limit)} of memory, until `livedump release`{more}")
