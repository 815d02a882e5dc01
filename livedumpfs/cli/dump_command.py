# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump`: a whole dump in one command. When the command is interrupted, the dump ends."""

from __future__ import annotations

import argparse
import contextlib
import threading
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from livedumpfs.cli.arguments import (
    TARGET_HELP,
    Commands,
    add_command,
    add_device,
    add_settings,
    natural,
)
from livedumpfs.cli.attach_command import add_libvirt
from livedumpfs.cli.exclude import add_exclude
from livedumpfs.cli.facts import add_json
from livedumpfs.cli.hold import add_hold, check_hold, hold
from livedumpfs.cli.identity import add_identity
from livedumpfs.cli.outcome import (
    Exit,
    complain,
    dump_taken,
    exit_code,
    interrupted,
    note,
    sentence,
)
from livedumpfs.cli.outlet import STANDARD_OUTPUT, Outlet, open_outlet
from livedumpfs.cli.progress import display
from livedumpfs.cli.store_outlet import add_store, goes_to_store, open_store_outlet
from livedumpfs.cli.upload_outlet import goes_to_object, open_upload_outlet
from livedumpfs.errors import LivedumpError, UsageError
from livedumpfs.thread import needing_threads, start_thread

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
    machine = parser.add_mutually_exclusive_group()
    add_device(machine)
    machine.add_argument(
        "--attach",
        metavar="SOCKET",
        help="dump the QEMU that runs with this monitor, with a host for this dump alone",
    )
    add_libvirt(machine)
    add_settings(parser)
    add_hold(parser)
    add_exclude(parser)
    add_store(parser)
    add_identity(parser)
    add_json(parser, "its status at the end, for programs")


def run_dump(args: argparse.Namespace) -> int:
    """Take the whole dump. However the command ends, the host releases the machine on close."""
    from livedumpfs.cli.attached_host import attached_host

    if args.json and (args.target == STANDARD_OUTPUT or args.exclude):
        raise UsageError("--json goes with neither --exclude nor a dump on standard output")
    args.to_object = goes_to_object(args)
    args.to_store = goes_to_store(args)
    take_it = _filtered if args.exclude else _dump
    if args.attach is not None:
        guest = ["--", args.attach]
    elif args.libvirt is not None:
        guest = [f"--libvirt={args.libvirt}"]
    else:
        return take_it(args)
    with attached_host(guest) as args.device:
        return take_it(args)


def _dump(args: argparse.Namespace) -> int:
    from livedumpfs.cli.connect import init_options
    from livedumpfs.client import Client
    from livedumpfs.targets import expect_series, prune

    init_options(args, release_on_close=True)  # what is wrong is refused before anything is made
    check_hold(args)
    if args.keep:
        expect_series(args.target or "", args.keep)
    with _open(args) as outlet:
        options = init_options(args, release_on_close=True)
        with Client(args.device) as client:
            there = True
            if outlet.since:
                client.init_as(None, outlet.path, options, as_set=True, since=outlet.since)
            else:
                client.init(outlet.path, options, as_set=True)
            outlet.handed_over()
            try:
                code = take(client, outlet, as_json=args.json)
                if args.hold:
                    there = hold(client)
            except KeyboardInterrupt as error:
                worth, where = state_of(client, outlet)
                complain(f"{interrupted(error)}; the dump on {where} is {worth}")
                code = exit_code(error)
                outlet.broken_off = worth == "incomplete"
            finally:
                if there:
                    let_go(client)
        problem = outlet.finish()
        if problem and code != Exit.DONE:
            if problem != outlet.told:
                note(problem)
        elif problem:
            complain(problem)
            code = Exit.NOT_VALID
        if code == Exit.DONE and args.keep:
            for gone in prune(args.target, args.keep):
                note(f"removed {gone}")
        return code


def _open(args: argparse.Namespace) -> AbstractContextManager[Outlet]:
    if args.to_object:
        return open_upload_outlet(args)
    return open_store_outlet(args) if args.to_store else open_outlet(args.target, args.recipients)


def _filtered(args: argparse.Namespace) -> int:
    """`--exclude`: makedumpfile writes the dump, from a snapshot in memory."""
    from livedumpfs.cli.filtered_dump import open_filtering
    from livedumpfs.client import Client
    from livedumpfs.targets import expect_series, prune

    if args.keep:
        expect_series(args.target or "", args.keep)
    with open_filtering(args) as filtering:
        try:
            with Client(args.device) as client:
                client.init(None, filtering.options(client))
                try:
                    start(client)
                    filtering.run(client)
                finally:
                    let_go(client)
            code = filtering.finish()
        except KeyboardInterrupt as error:
            complain(f"{interrupted(error)}; there is no dump on {filtering.name}")
            return exit_code(error)
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


def start(client: Client) -> None:
    """START, on a thread of its own: it takes seconds where the memory has to be brought here, and
    a signal cannot end the ioctl. RELEASE does."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            client.start()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="livedump-start", daemon=True)
    with needing_threads("start the dump"):
        start_thread(thread)
    thread.join()
    if failed:
        raise failed[0]


def take(client: Client, outlet: Outlet, *, as_json: bool = False) -> int:
    """From START to the seal. Prints the result, and returns the exit code."""
    from livedumpfs.cli.conclusion import conclude, print_pause
    from livedumpfs.cli.connect import follow

    start(client)
    where = outlet.alias or client.status().target
    with dump_taken(where):
        # SWEEP before anything is printed: a terminal may block, and the machine would wait for
        # slots.
        client.sweep()
        print_pause(client.status())
        with display("dump") as shown:
            status = follow(client, shown, name=outlet.alias, cause=lambda: outlet.problem)
    outlet.told = outlet.problem
    facts_of = "dump" if as_json else ""
    return conclude(
        client, status, outlet.alias, outlet.told, facts_of=facts_of, all_read=outlet.all_read
    )
