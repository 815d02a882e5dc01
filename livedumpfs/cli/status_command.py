# SPDX-License-Identifier: GPL-2.0-or-later
"""`status`: the state of a host's dump."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from livedumpfs.cli import text
from livedumpfs.cli.arguments import Commands, add_command, add_device
from livedumpfs.cli.barrier_command import wall
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.outcome import Exit
from livedumpfs.cli.output import say
from livedumpfs.cli.status_facts import status_facts
from livedumpfs.units import format_size

if TYPE_CHECKING:
    from livedumpfs.client import DumpStatus


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(commands, "status", "Say what the host's dump is doing.", run_status)
    add_device(parser)
    add_json(parser)


def run_status(args: argparse.Namespace) -> int:
    """Print the status of the present dump, or of the last one."""
    from livedumpfs.client import Client

    with Client(args.device) as client:
        status, device = client.status(), client.device
        stats = client.stats()
    if args.json:
        return tell_facts("status", status_facts(status, device, stats))
    say(text.table(status_rows(status, device, stats)))
    return Exit.DONE


def status_rows(status: DumpStatus, device: str, stats: dict[str, Any]) -> list[tuple[str, str]]:
    """What is printed, a fact a row; "" for what is not known. `stats`: stats.json."""
    from livedumpfs.cli.conclusion import verdict

    return [
        ("device", device),
        ("state", status.state.name),
        ("held", _held(stats)),
        ("target", status.target or ""),
        ("released", _released(stats)),
        ("policy", _policy(status) if status.counters["granules"] else ""),
        ("done", _done(status) if status.counters["granules"] else ""),
        *text.counter_rows(status.counters, stats["machine"]["name"]),
        ("verdict", verdict(status)),
        ("lost", text.pages(stats["lost_pages"])),
        ("reason", stats.get("reason") or stats["failure"] or ""),
    ]


def _policy(status: DumpStatus) -> str:
    """The policy: what happens when no slot is free, and its limit of memory."""
    policy = str(status.settings["policy"])
    if policy != "spill":
        return policy
    return f"{policy}, up to {format_size(status.settings['spill_limit'])}"


def _done(status: DumpStatus) -> str:
    """Bytes that the dump has, without lost ones. "" for a dump in memory."""
    if status.target is None:
        return ""
    done = f"{format_size(status.bytes_done)} of {format_size(status.bytes_total)}"
    return f"{done}, {format_size(status.lost)} lost" if status.lost else done


def _released(stats: dict[str, Any]) -> str:
    """Which process released the dump and when, or why the host did."""
    through = (stats.get("released") or "").removeprefix("released ")
    expired = (stats["expired"] or "").removeprefix("released: ")
    return ": ".join(part for part in (through, expired) if part)


def _held(stats: dict[str, Any]) -> str:
    """Since when the machine stands for `hold`."""
    held = stats.get("held")
    return f"since {wall(held['stood_wall_ns'])}" if held and held["now"] else ""
