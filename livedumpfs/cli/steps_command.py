# SPDX-License-Identifier: GPL-2.0-or-later
"""`init`, `start`, `sweep`, `finish`, `release`: the single steps of a dump. The dump goes on when
the command that took a step ends."""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from livedumpfs.cli.arguments import (
    TARGET_HELP,
    Commands,
    add_command,
    add_device,
    add_option,
    add_settings,
    seconds,
)
from livedumpfs.cli.barrier_command import add_id, instant_facts, moment, say_instant
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.outcome import Exit, complain, dump_taken
from livedumpfs.cli.outlet import STANDARD_OUTPUT, Outlet, open_outlet
from livedumpfs.cli.progress import display
from livedumpfs.cli.status_facts import status_facts
from livedumpfs.errors import UsageError
from livedumpfs.settings import OPTION

if TYPE_CHECKING:
    from livedumpfs.client import Client

_OF_INIT: Final = {
    "spill_limit": "memory for it at the most; default: what the machine has, or half of what is "
    "free",
    "at_limit": "",
    "stall_deadline": "",
    "max_age": "",
}
"""Options of `start --no-target` that are INIT's, with their help where it is another there."""


def add_commands(commands: Commands) -> None:
    """Register this group."""
    init = add_command(commands, "init", "Open the target and prepare the dump.", run_init)
    where = init.add_mutually_exclusive_group(required=True)
    where.add_argument("target", metavar="TARGET", nargs="?", help=TARGET_HELP)
    where.add_argument(
        "--no-target", action="store_true", help="keep the snapshot in memory until its release"
    )
    add_settings(init)
    add_id(init, "of the dump; do nothing if the host has that dump already; default: a new one")
    start = add_command(commands, "start", "Take the snapshot: stop, arm, resume.", run_start)
    start.add_argument(
        "--no-target",
        action="store_true",
        help="init too: keep the snapshot in memory until its release",
    )
    start.add_argument(
        "--at",
        type=moment,
        metavar="TIME",
        help="at that time by the host's clock, within 10 minutes: 2026-05-04T12:00:00+02:00, "
        "seconds since the epoch, or +2s",
    )
    add_id(start)
    for name, text in _OF_INIT.items():
        add_option(start, OPTION[name], text)
    add_json(start, "its status, for programs")
    sweep = add_command(commands, "sweep", "Start to save the memory.", run_sweep)
    finish = add_command(commands, "finish", "Wait until the dump is sealed.", run_finish)
    finish.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="give up waiting; default: never"
    )
    add_json(finish)
    release = add_command(
        commands,
        "release",
        "End the dump from any state. The machine runs at full speed again.",
        run_release,
        aliases=("uninit",),
    )
    add_json(release, "its status after that, for programs")
    for parser in (init, start, sweep, finish, release):
        add_device(parser)


def run_init(args: argparse.Namespace) -> int:
    """INIT. The dump goes on after the command, but for one to standard output: the command then
    waits for its release."""
    from livedumpfs.cli.connect import init_options
    from livedumpfs.client import Client

    piped = args.target == STANDARD_OUTPUT
    options = init_options(args, release_on_close=piped)
    with open_outlet(args.target) as outlet, Client(args.device) as client:
        target = None if args.no_target else outlet.path
        if args.id:
            client.init_as(args.id, target, options)
        else:
            client.init(target, options)
        outlet.handed_over()
        return pass_on(client, outlet) if piped else Exit.DONE


def pass_on(client: Client, outlet: Outlet) -> int:
    """Copy until the dump is released. Returns the exit code for its verdict."""
    from livedumpfs.abi import State, Verdict
    from livedumpfs.cli.conclusion import broken
    from livedumpfs.client import POLL_INTERVAL

    problem = outlet.finish()
    with dump_taken(outlet.alias):
        status = client.status()
        while status.target == outlet.path and status.state is not State.UNINIT:
            if problem:
                client.release()
            time.sleep(POLL_INTERVAL)
            status = client.status()
    if problem:
        complain(problem)
        return Exit.NOT_VALID
    if status.target != outlet.path:
        complain(f"the dump on {outlet.alias} is incomplete: it was released before its end")
        return Exit.NOT_VALID
    if status.verdict is not Verdict.CONSISTENT:
        complain(broken(client, status, outlet.alias))
        return Exit.NOT_VALID
    return Exit.DONE


def run_start(args: argparse.Namespace) -> int:
    """START, and print its cost. With --no-target INIT comes first, and is undone when START
    fails."""
    from livedumpfs.cli.conclusion import note_room, print_pause
    from livedumpfs.client import Client

    for option in (OPTION[name] for name in _OF_INIT):
        if getattr(args, option.name) and not args.no_target:
            raise UsageError(f"{option.flag} goes with --no-target", hint="give it to init")
    instant = None
    if args.no_target and (args.at or args.id):
        raise UsageError("--at and --id do not go with --no-target", hint="give --id to init")
    with Client(args.device) as client:
        if args.no_target:
            start_in_memory(client, {name: getattr(args, name) for name in _OF_INIT})
        elif args.at or args.id:
            instant = client.start_as(args.id, args.at or 0)
            say_instant(instant)
        else:
            client.start()
        status = client.status()
        print_pause(status)
        if not status.target:
            note_room(client, status)
        if not args.json:
            return Exit.DONE
        facts = status_facts(status, client.device, client.stats())
    return tell_facts("start", {**facts, **(instant_facts(instant) if instant else {})})


def start_in_memory(client: Client, values: dict[str, Any]) -> None:
    """INIT and START without a target. `values`: settings of INIT; what is empty is the host's."""
    from livedumpfs.client import InitOptions

    client.init(None, InitOptions(**values))
    try:
        client.start()
    except BaseException:
        client.release()
        raise


def run_sweep(args: argparse.Namespace) -> int:
    """SWEEP; does not wait for its end."""
    from livedumpfs.client import Client

    with Client(args.device) as client:
        client.sweep()
    return Exit.DONE


def run_finish(args: argparse.Namespace) -> int:
    """Wait for the end, and print the verdict."""
    from livedumpfs.abi import State
    from livedumpfs.cli.conclusion import conclude
    from livedumpfs.cli.connect import follow
    from livedumpfs.client import Client

    with Client(args.device) as client:
        before = client.status()
        taken = dump_taken(before.target) if before.state is State.SWEEP else nullcontext()
        with taken, display("finish") as shown:
            status = follow(client, shown, args.timeout)
        return conclude(client, status, facts_of="finish" if args.json else "")


def run_release(args: argparse.Namespace) -> int:
    """RELEASE from any state, and print the dump's verdict."""
    from livedumpfs.cli.conclusion import released
    from livedumpfs.client import Client

    with Client(args.device) as client:
        before = client.status()
        client.release()
        code = released(client, before)
        if not args.json:
            return code
        facts = status_facts(client.status(), client.device, client.stats())
    return tell_facts("release", facts, code)
