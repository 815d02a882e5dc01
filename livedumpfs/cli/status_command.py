# SPDX-License-Identifier: GPL-2.0-or-later
"""`status`: the state of a host's dump."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from livedumpfs import pause
from livedumpfs.abi import Verdict
from livedumpfs.cli import text
from livedumpfs.cli.arguments import Commands, add_command, add_device
from livedumpfs.cli.outcome import Exit, answer
from livedumpfs.cli.output import say
from livedumpfs.units import format_size

if TYPE_CHECKING:
    from livedumpfs.client import DumpStatus


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(commands, "status", "Say what the host's dump is doing.", run_status)
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


def run_status(args: argparse.Namespace) -> int:
    """Print the status of the present dump, or of the last one."""
    from livedumpfs.cli.conclusion import verdict
    from livedumpfs.client import Client

    with Client(args.device) as client:
        status, device = client.status(), client.device
        stats = client.stats()
    if args.json:
        return answer(json.dumps(_as_json(status, device, stats), indent=2))
    rows = [
        ("device", device),
        ("state", status.state.name),
        ("target", status.target or ""),
        ("released", _released(stats)),
        ("policy", _policy(status) if status.counters["granules"] else ""),
        ("done", _done(status) if status.counters["granules"] else ""),
        *text.counter_rows(status.counters, stats["machine"]["name"]),
        ("verdict", verdict(status)),
        ("lost", text.pages(stats["lost_pages"])),
        ("reason", stats.get("reason") or stats["failure"] or ""),
    ]
    say(text.table(rows))
    return Exit.DONE


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


def _named(verdict: Verdict) -> str | None:
    """The verdict's name; None: there is none."""
    return verdict.name.lower() if verdict else None


def _as_json(status: DumpStatus, device: str, stats: dict[str, Any]) -> dict[str, object]:
    """The status for programs; null for a value that does not exist."""
    return {
        "device": device,
        "state": status.state.name,
        "target": status.target,
        "verdict": _named(status.verdict),
        "so_far": _named(status.so_far),
        "failure": stats["failure"],
        "reason": stats.get("reason"),
        "expired": stats["expired"],
        "released": stats.get("released"),
        **status.settings,
        "bytes_total": status.bytes_total,
        "bytes_done": status.bytes_done,
        "bytes_lost": status.lost,
        "pause": pause.parts(status.counters),
        "counters": status.counters,
        "lost_pages": stats["lost_pages"],
    }
