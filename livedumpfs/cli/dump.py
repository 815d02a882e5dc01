# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump`: a whole dump in one command, which ends it when it is interrupted."""

from __future__ import annotations

import argparse

from livedumpfs.cli.options import Commands, add_command, add_device, add_settings
from livedumpfs.cli.outcome import Exit, complain, note
from livedumpfs.cli.progress import display


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "dump",
        "Dump the running machine to a target: init, start, sweep, finish and release. "
        "Ctrl-C releases.",
        run_dump,
    )
    parser.add_argument("target", metavar="TARGET", help="block device or regular file")
    add_device(parser)
    add_settings(parser)


def run_dump(args: argparse.Namespace) -> int:
    """The whole dump. Whatever ends it, the machine is free again: the host releases on close."""
    from livedumpfs.cli.connect import follow, init_options
    from livedumpfs.cli.report import conclude, print_pause
    from livedumpfs.client import Client

    with Client(args.device) as client:
        client.init(args.target, init_options(args, release_on_close=True))
        try:
            client.start()
            print_pause(client.status())
            client.sweep()
            with display("dump") as shown:
                status = follow(client, shown)
            return conclude(client, status)
        except KeyboardInterrupt:
            complain(f"interrupted; the dump on {args.target} is incomplete")
            return Exit.FAILED
        finally:
            client.release()
            note("released; the machine runs at full speed")
