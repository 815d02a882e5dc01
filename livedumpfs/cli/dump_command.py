# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump`: a whole dump in one command. When the command is interrupted, the dump ends."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from livedumpfs.cli.arguments import (
    TARGET_HELP,
    Commands,
    add_command,
    add_device,
    add_settings,
    natural,
)
from livedumpfs.cli.hold import add_hold, check_hold, hold
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
    add_hold(parser)


def run_dump(args: argparse.Namespace) -> int:
    """Take the whole dump. However the command ends, the host releases the machine on close."""
    from livedumpfs.cli.connect import init_options
    from livedumpfs.client import Client
    from livedumpfs.targets import expect_series, prune

    options = init_options(args, release_on_close=True)
    check_hold(args)
    if args.keep:
        expect_series(args.target or "", args.keep)
    with open_outlet(args.target) as outlet:
        with Client(args.device) as client:
            there = True
            client.init(outlet.path, options, as_set=True)
            outlet.handed_over()
            try:
                code = take(client, outlet)
                if args.hold:
                    there = hold(client)
            except KeyboardInterrupt as error:
                worth, where = state_of(client, outlet)
                complain(f"{interrupted(error)}; the dump on {where} is {worth}")
                code = exit_code(error)
            finally:
                if there:
                    let_go(client)
        problem = outlet.finish()
        if problem and code != Exit.DONE:  # the host knows only that its pipe broke
            note(problem)
        elif problem:
            complain(problem)
            code = Exit.NOT_VALID
        if code == Exit.DONE and args.keep:
            for gone in prune(args.target, args.keep):
                note(f"removed {gone}")
        return code


def state_of(client: Client, outlet: Outlet) -> tuple[str, str]:
    """Verdict and place of a dump that is interrupted now. The verdict counts if it was final
    before."""
    where = outlet.alias or outlet.path or "its target"
    with contextlib.suppress(LivedumpError):
        status = client.status()
        where = outlet.alias or status.target or where
        if status.finished:
            return status.verdict.name.lower(), where
    return "incomplete", where


def let_go(client: Client) -> None:
    """RELEASE. An error of it does not change the dump."""
    try:
        client.release()
    except LivedumpError as error:
        note(f"not released: {sentence(error)}")
    else:
        note("released; the machine runs at full speed")


def take(client: Client, outlet: Outlet) -> int:
    """From START to the seal. Prints the result, and returns the exit code."""
    from livedumpfs.cli.conclusion import conclude, print_pause
    from livedumpfs.cli.connect import follow

    client.start()
    where = outlet.alias or client.status().target
    with dump_taken(where):
        # SWEEP before anything is printed: a terminal may block, and the machine would wait for
        # slots.
        client.sweep()
        print_pause(client.status())
        with display("dump") as shown:
            status = follow(client, shown, name=outlet.alias)
    return conclude(client, status, outlet.alias)
