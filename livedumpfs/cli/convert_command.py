# SPDX-License-Identifier: GPL-2.0-or-later
"""`convert`: from a dump to another format, or to a plain image."""

from __future__ import annotations

import argparse
import errno
import os
from typing import TYPE_CHECKING, BinaryIO, Final

from livedumpfs.cli import text
from livedumpfs.cli.arguments import Commands, add_command, add_option, add_sidecar
from livedumpfs.cli.outcome import Exit, note
from livedumpfs.cli.output import INPUT_FD, OUTPUT_FD, cannot_say
from livedumpfs.cli.progress import display
from livedumpfs.errors import TargetError, UsageError
from livedumpfs.settings import COMPRESSION, CONVERTED, CONVERTED_TABLES, OPTION, PACKED

if TYPE_CHECKING:
    from livedumpfs.dumpfile import DumpFile, Output

STANDARD = "-"
"""Stands for standard input, or standard output."""
_PACKING: Final = tuple(OPTION[name] for name in ("compression", "level", "threads"))
"""Options for the formats that are PACKED."""


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands, "convert", "Write a dump in another format, or as a plain image.", run_convert
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="block device or file with a dump, or a dump in makedumpfile's flattened form in a "
        "file or, with -, on standard input",
    )
    parser.add_argument("out", metavar="OUT", help="file to make; - for standard output")
    parser.add_argument("--format", choices=CONVERTED, help="layout of it; default: elf")
    for one in _PACKING:
        add_option(parser, one)
    parser.add_argument(
        "--table",
        choices=CONVERTED_TABLES,
        help="tail: of raw, a dump with its granule table behind the memory; default: none, a "
        "plain image",
    )
    add_sidecar(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="also to a plain image from a dump that is not consistent; missing pages are zeros",
    )


def run_convert(args: argparse.Namespace) -> int:
    """Exit status: 0 when all is written; 3 when the dump is not valid, or, for a plain image
    without --force, not consistent."""
    from livedumpfs.dumpfile import is_flattened

    if args.target == STANDARD or is_flattened(args.target):
        return _rearrange(args)
    format = args.format or "elf"
    _check_options(args, format)
    try:
        return _convert(args, format)
    except BrokenPipeError as error:
        raise TargetError(cannot_say(error), errno=errno.EPIPE) from error


def _check_options(args: argparse.Namespace, format: str) -> None:
    for one in (*_PACKING, OPTION["table"]):
        formats = PACKED if one in _PACKING else one.formats
        if getattr(args, one.name) and format not in formats:
            raise UsageError(f"{one.flag} goes with --format {formats[0]}, not with {format}")
    OPTION["threads"].check(args.threads)


def _convert(args: argparse.Namespace, format: str) -> int:
    from livedumpfs.dumpfile import convert_dump, is_image, open_dump, refuse_inconsistent

    table_at = args.table or "none"
    image = is_image(format, table_at)
    with open_dump(args.target, args.sidecar) as dump:
        if image and not args.force:
            refuse_inconsistent(dump)
        with open_output(args.out) as out, display("convert") as shown:
            convert_dump(
                dump,
                format,
                out,
                lambda done, total: shown.update(done, total, 0),
                table_at=table_at,
                compression=args.compression or COMPRESSION,
                level=args.level,
                threads=args.threads,
                check=not args.force,
            )
        _say_what_is_missing(dump, args.target, image)
    return Exit.DONE


def _say_what_is_missing(dump: DumpFile, name: str, image: bool) -> None:
    from livedumpfs.dumpfile import missing_pages

    if dump.verdict != "consistent":
        pages = text.count(missing_pages(dump), "missing page")
        note(f"{name} is {dump.verdict}; {pages} {'written as zeros' if image else 'stay missing'}")


def _rearrange(args: argparse.Namespace) -> int:
    """Input in makedumpfile's flattened form becomes a kdump file; other formats need a second
    step."""
    from livedumpfs.dumpfile import NewFile, rearrange

    name = "standard input" if args.target == STANDARD else args.target
    if args.format != "kdump" or args.out == STANDARD:
        raise UsageError(
            f"what comes from {name} is a kdump in makedumpfile's flattened form",
            hint="first make a file of it, with --format kdump",
        )
    _check_options(args, "kdump's flattened form")
    with open_input(args.target) as file, NewFile(args.out) as out:
        rearrange(file.fileno(), name, out)
    return Exit.DONE


def open_input(path: str) -> BinaryIO:
    """Open a file, or standard input."""
    return open(INPUT_FD if path == STANDARD else path, "rb", closefd=path != STANDARD)


def open_output(path: str) -> Output:
    """Make a new file, or use standard output."""
    from livedumpfs.dumpfile import NewFile, Stream

    if path != STANDARD:
        return NewFile(path)
    if os.isatty(OUTPUT_FD):
        raise UsageError("a dump does not go to a terminal", hint="name a file or a pipe")
    return Stream(OUTPUT_FD, "standard output")
