# SPDX-License-Identifier: GPL-2.0-or-later
"""`convert`: from a dump to a plain image."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from livedumpfs.cli import text
from livedumpfs.cli.options import Commands, add_command, add_sidecar
from livedumpfs.cli.outcome import Exit, note
from livedumpfs.cli.progress import display
from livedumpfs.errors import UsageError

if TYPE_CHECKING:
    from livedumpfs.snapshot import Output

IMAGE_FORMATS = ("elf", "raw", "lime")
STANDARD_OUTPUT = "-"


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands, "convert", "Write the memory in a dump as a plain image.", run_convert
    )
    parser.add_argument("target", metavar="TARGET", help="block device or file with a dump")
    parser.add_argument("out", metavar="OUT", help="file to make; - for standard output")
    parser.add_argument(
        "--format", choices=IMAGE_FORMATS, default="elf", help="layout of it; default: elf"
    )
    add_sidecar(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="also from a dump that is not consistent; missing pages are zeros",
    )


def run_convert(args: argparse.Namespace) -> int:
    """0 when all is written; 3 when the dump is not consistent, and no --force."""
    from livedumpfs.snapshot import convert_dump, missing_pages, open_dump, refuse_inconsistent

    with open_dump(args.target, args.sidecar) as dump:
        if not args.force:
            refuse_inconsistent(dump)
        with open_output(args.out) as out, display("convert") as shown:
            convert_dump(dump, args.format, out, lambda done, total: shown.update(done, total, 0))
        if dump.verdict != "consistent":
            pages = text.count(missing_pages(dump), "missing page")
            note(f"{args.target} is {dump.verdict}; {pages} written as zeros")
    return Exit.DONE


def open_output(path: str) -> Output:
    """A new file, or standard output."""
    from livedumpfs.snapshot import NewFile, Stream

    if path != STANDARD_OUTPUT:
        return NewFile(path)
    if os.isatty(sys.stdout.fileno()):
        raise UsageError("an image does not go to a terminal", hint="name a file or a pipe")
    return Stream(sys.stdout.fileno(), "standard output")
