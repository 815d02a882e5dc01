# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host's dump has come to, printed, and the exit code that goes with it."""

from __future__ import annotations

from livedumpfs.abi import Verdict
from livedumpfs.cli import text
from livedumpfs.cli.outcome import Exit, complain
from livedumpfs.client import Client, Status


def print_pause(status: Status) -> None:
    """The line after START."""
    print(f"machine stopped for {text.pause(status.counters)}, and runs on", flush=True)


def conclude(client: Client, status: Status) -> int:
    """A finished dump: its figures, its verdict, and what went wrong."""
    verdict = status.verdict.name.lower()
    rows = [row for row in text.counter_rows(status.counters) if row[0] != "pause"]
    print(text.table([*rows, ("target", status.target or "none"), ("verdict", verdict)]))
    if status.verdict is Verdict.CONSISTENT:
        return Exit.DONE
    failure = failure_of(client)
    if failure:
        complain(failure)
        return Exit.FAILED
    lost = text.count(status.counters["lost"], "granule")
    complain(f"the dump on {status.target} is {verdict}: {lost} lost")
    return Exit.NOT_VALID


def failure_of(client: Client) -> str:
    """What went wrong first, as the host says it: object and cause. "": nothing."""
    return client.stats()["failure"] or ""
