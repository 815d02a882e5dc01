# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump`: a whole dump in one command, which ends it when it is interrupted."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from livedumpfs.cli.hold import add_hold, check_hold, hold
from livedumpfs.cli.options import (
    TARGET_HELP,
    Commands,
    add_command,
    add_device,
    add_settings,
)
from livedumpfs.cli.outcome import (
    Exit,
    complain,
    dump_taken,
    exit_code,
    interrupted,
    note,
    sentence,
)
from livedumpfs.cli.outlet import Outlet, open_outlet
from livedumpfs.cli.progress import display
from livedumpfs.errors import LivedumpError

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
    parser.add_argument("target", metavar="TARGET", help=TARGET_HELP)
    add_device(parser)
    add_settings(parser)
    add_hold(parser)


def run_dump(args: argparse.Namespace) -> int:
    """The whole dump. Whatever ends it, the machine is free again: the host releases on close."""
    from livedumpfs.cli.connect import init_options
    from livedumpfs.cli.defaults import usage_first
    from livedumpfs.client import Client

    options = init_options(args, release_on_close=True)
    check_hold(args)
    with open_outlet(args.target) as outlet:
        with Client(args.device) as client:
            with outlet.named(), usage_first(args):
                client.init(outlet.path, options)
            outlet.handed_over()
            try:
                code = take(client, outlet)
                if args.hold:
                    hold(client)
            except KeyboardInterrupt as error:
                complain(f"{interrupted(error)}; the dump on {outlet.name} is {worth(client)}")
                code = exit_code(error)
            finally:
                let_go(client)
        problem = outlet.finish()
        if problem and code == Exit.DONE:
            complain(problem)
            code = Exit.NOT_VALID
        return code


def worth(client: Client) -> str:
    """Of a dump that is interrupted now; its verdict when that was known before."""
    with contextlib.suppress(LivedumpError):
        status = client.status()
        if status.finished:
            return status.verdict.name.lower()
    return "incomplete"


def let_go(client: Client) -> None:
    """RELEASE. The dump is what it is, also when that fails."""
    try:
        client.release()
    except LivedumpError as error:
        note(f"not released: {sentence(error)}")
    else:
        note("released; the machine runs at full speed")


def take(client: Client, outlet: Outlet) -> int:
    """From START to the seal, and what came out."""
    from livedumpfs.cli.connect import follow
    from livedumpfs.cli.report import conclude, print_pause

    client.start()
    with dump_taken(outlet.name):
        # Before all that prints: a terminal can stand still, and the machine then waits for slots.
        client.sweep()
        print_pause(client.status())
        with display("dump") as shown:
            status = follow(client, shown, name=outlet.name)
    return conclude(client, status, outlet.name)
