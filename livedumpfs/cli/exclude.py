# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump --exclude`: kinds of pages by makedumpfile's own numbers, and what does not go with it."""

from __future__ import annotations

import argparse
from typing import Any, Final

from livedumpfs.cli.given import given
from livedumpfs.errors import UsageError
from livedumpfs.settings import OPTION

KINDS: Final = {"zero": 1, "cache": 2, "all-cache": 4, "user": 8, "free": 16, "all": 31}
"""Name -> makedumpfile's -d. `cache` is that without private data; makedumpfile takes 4 for all."""
_FOR_HOSTS_TARGET: Final = ("sweep_rate", "buffered", "sidecar", "table", "level", "threads")
"""Options about how a host writes, or that makedumpfile does not have."""
_NOT_OF_INIT: Final = ("format", "compression", "force")


def level(text: str) -> int:
    """Reads a list of KINDS, or a number as for makedumpfile -d."""
    if text.isdecimal() and 0 < int(text) < 32:
        return int(text)
    found = 0
    for word in text.split(","):
        if word not in KINDS:
            names = ", ".join(KINDS)
            raise argparse.ArgumentTypeError(
                f"no kind of pages: {word!r} (a list of {names}; or 1 to 31, as makedumpfile -d)"
            )
        found |= KINDS[word]
    return found


def add_exclude(parser: argparse.ArgumentParser) -> None:
    """Add the option `--exclude`."""
    parser.add_argument(
        "--exclude",
        type=level,
        metavar="LIST",
        help=f"let makedumpfile write the dump without these pages: {', '.join(KINDS)}; or its -d",
    )


def settings_for_memory(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of INIT for a snapshot that makedumpfile reads. UsageError: something does not go
    with --exclude."""
    found = given(args)
    for name in _FOR_HOSTS_TARGET:
        if name in found:
            raise UsageError(f"{OPTION[name].flag} does not go with --exclude")
    if found.get("format", "kdump") != "kdump":
        raise UsageError(f"makedumpfile writes a kdump here, not {found['format']}")
    if args.hold:
        raise UsageError("--hold does not go with --exclude: makedumpfile has read all it needs")
    if args.target is None:
        raise UsageError("--exclude needs TARGET", hint="a file, or - for standard output")
    return {name: value for name, value in found.items() if name not in _NOT_OF_INIT}
