# SPDX-License-Identifier: GPL-2.0-or-later
"""`doctor`: whether this computer has what livedumpfs needs, and the command that mends it."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Collection
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from livedumpfs.cli.arguments import Commands, add_command
from livedumpfs.cli.colour import in_colour
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.outcome import Exit, complain
from livedumpfs.cli.output import is_terminal, say
from livedumpfs.errors import printable

if TYPE_CHECKING:
    from livedumpfs.doctor import Finding

_PARTS: Final = ("qemu", "libvirt", "fleet", "huge")
"""As livedumpfs.doctor.PARTS, without `host`, which all need."""
_COLOURS: Final = {"ok": "green", "limited": "yellow", "missing": "red"}
_MARK: Final = 7
_NAME: Final = 17
_INDENT: Final = " " * (_MARK + _NAME + 4)
_NARROWEST: Final = 60


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "doctor",
        "Look whether this computer has what livedumpfs needs. Nothing is changed. Exit code 1: "
        "something that is needed is missing.",
        run_doctor,
    )
    parser.add_argument(
        "--for",
        action="append",
        choices=_PARTS,
        default=[],
        dest="parts",
        help="this is needed, too; may be given several times",
    )
    add_json(parser)


def run_doctor(args: argparse.Namespace) -> int:
    """Print a line for each thing. Exit status 1 when something is missing that is needed."""
    from livedumpfs.doctor import System, examine

    parts = ("host", *args.parts)
    found = examine(System())
    stopping = [one.name for one in found if one.stops(parts)]
    code = Exit.FAILED if stopping else Exit.DONE
    if args.json:
        findings = [{**asdict(one), "needed": one.needed(parts)} for one in found]
        code = Exit(tell_facts("doctor", {"ok": not stopping, "findings": findings}, code))
    else:
        width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 0
        say("\n".join(_lines(one, parts, width) for one in found))
        if not stopping:
            without = [part for part in _PARTS if any(one.stops([part]) for one in found)]
            more = f"; something is missing for {', '.join(without)}" if without else ""
            say(f"all that is needed is there{more}")
    if stopping:
        complain(f"missing, and needed: {', '.join(stopping)} (see the command beside each)")
    return code


def _lines(one: Finding, parts: Collection[str], width: int) -> str:
    """The finding, and what mends it. `width`: columns of the terminal, 0: none."""
    colour = "yellow" if one.mend and not one.stops(parts) else _COLOURS[one.health]
    mark = in_colour(f"{one.health:<{_MARK}}", colour)
    said = _wrapped(printable(f"{one.found} - {one.purpose}"), width)
    lines = [f"{mark}  {one.name:<{_NAME}}  {said}"]
    if one.mend:
        lines.append(f"{_INDENT}mend: {_wrapped(printable(one.mend), width, '      ')}")
    return "\n".join(lines)


def _wrapped(text: str, width: int, more: str = "") -> str:
    """The text with its later lines below the first one."""
    if not width:
        return text
    room = max(width, _NARROWEST) - len(_INDENT) - len(more)
    lines = textwrap.wrap(text, room, break_on_hyphens=False, break_long_words=False)
    return f"\n{_INDENT}{more}".join(lines)
