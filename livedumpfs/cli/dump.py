# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump`: a whole dump in one command, which ends it when it is interrupted."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from livedumpfs.cli.options import (
    TARGET_HELP,
    Commands,
    add_command,
    add_device,
    add_settings,
    natural,
)
from livedumpfs.cli.outcome import Exit, complain, note
from livedumpfs.cli.outlet import Outlet, open_outlet
from livedumpfs.cli.progress import display

if TYPE_CHECKING:
    from livedumpfs.client import Client


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "dump",
        "Dump the running machine to a target: init, start, sweep, finish and release. "
        "Ctrl-C releases.",
        run_dump,
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help=f"{TARGET_HELP}; default: what control/output says. "
        "{date} in it becomes the local time",
    )
    parser.add_argument(
        "--keep",
        type=natural,
        default=0,
        metavar="N",
        help="with {date}: after a consistent dump remove older ones, so that N are left",
    )
    add_device(parser)
    add_settings(parser)


def run_dump(args: argparse.Namespace) -> int:
    """The whole dump. Whatever ends it, the machine is free again: the host releases on close."""
    from livedumpfs.cli.connect import init_options
    from livedumpfs.client import Client
    from livedumpfs.targets import expect_series, prune

    options = init_options(args, release_on_close=True)
    if args.keep:
        expect_series(args.target or "", args.keep)
    with open_outlet(args.target) as outlet:
        with Client(args.device) as client:
            client.init(outlet.path, options, as_set=True)
            outlet.handed_over()
            try:
                code = take(client, outlet)
            except KeyboardInterrupt:
                where = outlet.alias or client.status().target
                complain(f"interrupted; the dump on {where} is incomplete")
                code = Exit.FAILED
            finally:
                client.release()
                note("released; the machine runs at full speed")
        problem = outlet.finish()
        if problem:
            complain(problem)
            code = code or Exit.FAILED
        if code == Exit.DONE and args.keep:
            for gone in prune(args.target, args.keep):
                note(f"removed {gone}")
        return code


def take(client: Client, outlet: Outlet) -> int:
    """From START to the seal, and what came out."""
    from livedumpfs.cli.connect import follow
    from livedumpfs.cli.report import conclude, print_pause

    client.start()
    print_pause(client.status())
    client.sweep()
    with display("dump") as shown:
        status = follow(client, shown)
    code = conclude(client, status, outlet.alias)
    failure = client.stats()["failure"]
    if code == Exit.DONE and failure:  # good, but not where it was to be
        complain(failure)
        return Exit.FAILED
    return code
