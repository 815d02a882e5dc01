# SPDX-License-Identifier: GPL-2.0-or-later
"""`mount`: serves a dump's snapshot/ without its machine."""

from __future__ import annotations

import argparse

from livedumpfs.cli.arguments import DUMP_HELP, Commands, add_command, add_sidecar
from livedumpfs.cli.identity import add_identity
from livedumpfs.cli.outcome import Exit, end_at_once, note
from livedumpfs.cli.output import say
from livedumpfs.errors import printable


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "mount",
        "Show the snapshot in a dump as files. Ctrl-C, SIGTERM or fusermount -u ends it.",
        run_mount,
    )
    parser.add_argument("target", metavar="TARGET", help=DUMP_HELP)
    parser.add_argument("directory", metavar="DIR", help="empty directory to mount at")
    add_sidecar(parser)
    add_identity(parser)
    parser.add_argument(
        "--zero-missing",
        action="store_true",
        help="missing pages read as zeros, not as I/O errors",
    )


def run_mount(args: argparse.Namespace) -> int:
    """Serve until a signal; dumps of any verdict."""
    from livedumpfs.dumpfile import files_of, open_dump
    from livedumpfs.mount.browse import DIRECTORY, browse

    with open_dump(args.target, args.sidecar) as dump:
        if dump.verdict != "consistent":
            note(f"{args.target} is {dump.verdict}")

        def announce() -> None:
            say(f"snapshot {printable(args.directory.rstrip('/'))}{DIRECTORY}")

        end_at_once()
        browse(files_of(dump, zero_missing=args.zero_missing), args.directory, announce)
    return Exit.DONE
