# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several commands share, and the readers of their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from livedumpfs.kinds import Choice, Count, Duration, Flag, Seconds, Size, ValueKind
from livedumpfs.option import Option
from livedumpfs.settings import OPTION, OPTIONS

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace], int]

TARGET_HELP = "block device, regular file or pipe; - for standard output"
DUMP_HELP = "block device or file with a dump, or STORE#DUMP"


def _reader(kind: ValueKind) -> Callable[[str], Any]:
    """A reader for argparse."""

    def read(text: str) -> Any:
        try:
            return kind.argument(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


size = _reader(Size())
"""Reads bytes, more than 0: "4096", "64K", "1GiB"."""
natural = _reader(Count())
"""Reads a number, 0 or more."""
seconds = _reader(Seconds())
"""Reads a time above 0, in seconds."""
duration = _reader(Duration())
"""Reads a time above 0: "30", "30s", "5min", "2h", "1d"."""


def share(text: str) -> float:
    """Reads a share, above 0 and at most 1: "0.25" or "25%"."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"not a share: {text!r} (write 0.25 or 25%)")
    return value


def add_command(
    commands: Commands, name: str, text: str, run: Run, *, aliases: tuple[str, ...] = ()
) -> argparse.ArgumentParser:
    """Add a command; `run` gets its arguments and returns its exit code."""
    summary = text.partition(".")[0]
    parser = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:],
        description=text,
        aliases=aliases,
    )
    parser.set_defaults(run=run)
    return parser


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add `--device`, which says which host is meant."""
    parser.add_argument(
        "--device",
        metavar="HOST",
        help="its livedump file, its mount's directory, its pid or its name; default: "
        "LIVEDUMP_DEVICE, else the only running host of this user",
    )


def add_option(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    one: Option,
    help: str = "",
) -> None:
    """Add the option of a row. Its value gets the row's name, and ValueKind.nothing if it was not
    given. `help`: replaces the row's."""
    kind = one.kind
    if isinstance(kind, Flag):
        parser.add_argument(one.flag, dest=one.name, action="store_true", help=help or one.help)
        return
    parser.add_argument(
        one.flag,
        dest=one.name,
        choices=kind.words if isinstance(kind, Choice) else None,
        type=_reader(kind),
        default=kind.nothing,
        metavar=kind.metavar,
        help=help or f"{one.help}; default: {one.default}",
    )


def add_sidecar(parser: argparse.ArgumentParser) -> None:
    """Add `--sidecar`, the file that describes a raw dump."""
    add_option(parser, OPTION["sidecar"])


def client_options(rows: Sequence[Option] = OPTIONS) -> list[Option]:
    """The rows that a client can set in INIT."""
    return [one for one in rows if one.ioctl]


def add_settings(parser: argparse.ArgumentParser, rows: Sequence[Option] = ()) -> None:
    """Add the options for INIT: those that a client can set, or `rows`."""
    group = parser.add_argument_group("how to dump")
    for one in rows or client_options():
        add_option(group, one)
