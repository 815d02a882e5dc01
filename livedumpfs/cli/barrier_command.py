# SPDX-License-Identifier: GPL-2.0-or-later
"""`hold`, `arm`, `go`: START in three steps, for several hosts at one instant; and the times and
ids that such commands take."""

from __future__ import annotations

import argparse
import datetime
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from livedumpfs.cli.arguments import Commands, add_command, add_device
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.outcome import Exit
from livedumpfs.cli.output import report
from livedumpfs.units import format_duration, parse_duration

if TYPE_CHECKING:
    from livedumpfs.answers import Instant

_ID_DIGITS: Final = 32


def add_commands(commands: Commands) -> None:
    """Register this group."""
    hold = add_command(commands, "hold", "Stop the machine, until go or a deadline.", run_hold)
    hold.add_argument(
        "--deadline",
        type=span,
        default=2.0,
        metavar="TIME",
        help="let it go by itself after so long, 60s at the most; default: 2s",
    )
    arm = add_command(commands, "arm", "Take the snapshot of a machine that is held.", run_arm)
    go = add_command(commands, "go", "Let a machine run that is held and armed.", run_go)
    for parser in (hold, arm, go):
        add_id(parser)
        add_device(parser)
        add_json(parser)


def add_id(parser: argparse.ArgumentParser, help: str = "") -> None:
    """Add the option `--id`."""
    text = "refuse another dump than this, and do nothing if the step was taken already"
    parser.add_argument("--id", type=dump_id, metavar="ID", help=help or text)


def run_hold(args: argparse.Namespace) -> int:
    """HOLD."""
    from livedumpfs.client import Client

    with Client(args.device) as client:
        found = client.hold(args.id, args.deadline)
    if args.json:
        return tell_facts("hold", instant_facts(found))
    report(f"machine stands since {wall(found.stood_wall_ns)}{_already(found)}")
    return Exit.DONE


def run_arm(args: argparse.Namespace) -> int:
    """ARM."""
    from livedumpfs.client import Client

    with Client(args.device) as client:
        found = client.arm(args.id)
    if args.json:
        return tell_facts("arm", instant_facts(found))
    say_instant(found)
    return Exit.DONE


def run_go(args: argparse.Namespace) -> int:
    """GO."""
    from livedumpfs.client import Client

    with Client(args.device) as client:
        found = client.go(args.id)
    if args.json:
        return tell_facts("go", instant_facts(found))
    stood = format_duration(found.ran_mono_ns - found.stood_mono_ns)
    report(f"machine stood for {stood}, and runs on{_already(found)}")
    return Exit.DONE


def instant_facts(found: Instant) -> dict[str, Any]:
    """For programs. Times in ns, 0: not yet."""
    return {**asdict(found), "dump_id": found.dump_id.hex()}


def say_instant(found: Instant) -> None:
    """Print when the snapshot was taken."""
    error = f", {format_duration(found.error_ns)} late" if found.at_ns else ""
    report(f"snapshot of {wall(found.instant_wall_ns)}{error}{_already(found)}")


def _already(found: Instant) -> str:
    return " (by an earlier step)" if found.already and not found.at_ns else ""


def wall(ns: int) -> str:
    """A time of the wall clock, in this computer's time zone."""
    seconds, rest = divmod(ns, 10**9)
    local = datetime.datetime.fromtimestamp(seconds).astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S}.{rest // 1000:06}{local:%z}"


# ------------------------------------------------------------------------- arguments


def dump_id(text: str) -> bytes:
    """For argparse: 32 hexadecimal digits, not all 0."""
    digits = text.replace("-", "")
    if len(digits) != _ID_DIGITS or not int(digits, 16):
        raise argparse.ArgumentTypeError(f"not {_ID_DIGITS} hexadecimal digits: {text!r}")
    return bytes.fromhex(digits)


def span(text: str) -> float:
    """For argparse: seconds, from 30, 500ms, 2s or 5min."""
    try:
        seconds = float(text[:-2]) / 1e3 if text.endswith("ms") else parse_duration(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"not a time above 0: {text!r}")
    return seconds


def moment(text: str) -> int:
    """For argparse: ns since the epoch, from seconds since then, a time of day in ISO 8601 or, with
    a plus sign, so long from now."""
    try:
        if text.startswith("+"):
            return time.time_ns() + int(span(text[1:]) * 1e9)
        if text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit():
            whole, _, part = text.partition(".")
            return int(whole or 0) * 10**9 + int(part[:9].ljust(9, "0"))
        return round(datetime.datetime.fromisoformat(text).timestamp() * 1e6) * 1000
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"not a time: {text!r}; it is like 2026-05-04T12:00:00+02:00, 1777888800.5 or +2s"
        ) from None
