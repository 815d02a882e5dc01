# SPDX-License-Identifier: GPL-2.0-or-later
"""`linux`: the processes and the log of the Linux in a dump."""

from __future__ import annotations

import argparse
import itertools
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from livedumpfs.cli.arguments import DUMP_HELP, Commands, add_command, add_sidecar, natural
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.identity import add_identity
from livedumpfs.cli.outcome import Exit
from livedumpfs.cli.output import say
from livedumpfs.errors import printable

if TYPE_CHECKING:
    from livedumpfs.linux import LinuxTask

_DEFAULT_LINES: Final = 10
_ROW: Final = "{:>7}  {:>7}  {}  {}"


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "linux",
        "Print the processes and the last lines of the log of the Linux in a dump, without debug "
        "symbols.",
        run_linux,
    )
    parser.add_argument("dump", metavar="DUMP", help=DUMP_HELP)
    add_identity(parser)
    add_sidecar(parser)
    parser.add_argument(
        "--kernel-threads", action="store_true", help="print the threads of the kernel, too"
    )
    parser.add_argument(
        "--log",
        type=natural,
        default=_DEFAULT_LINES,
        metavar="N",
        help=f"so many records of the log at the most; default: {_DEFAULT_LINES}",
    )
    add_json(parser)


def run_linux(args: argparse.Namespace) -> int:
    """Print both. InvalidDump: there is no Linux in it that can be read here."""
    from livedumpfs.dumpfile import open_dump
    from livedumpfs.linux import Kernel, log_records, tasks

    with open_dump(args.dump, args.sidecar) as dump:
        kernel = Kernel(dump.meta, dump.read_physical)
        found = list(tasks(kernel))
        log = list(deque(log_records(kernel), maxlen=args.log))
    shown = [one for one in found if one.user_memory or args.kernel_threads]
    threads = sum(not one.user_memory for one in found)
    release, offset = kernel.description.release, kernel.description.kernel_offset
    if args.json:
        facts = {
            "release": release,
            "kernel_offset": offset,
            "task_count": len(found),
            "kernel_thread_count": threads,
            "tasks": [asdict(one) for one in shown],
            "log": [asdict(one) for one in log],
        }
        return tell_facts("linux", facts)
    say(f"Linux {printable(release)}" + (f", {offset:#x} above its symbols" if offset else ""))
    say(f"{len(found)} tasks, {threads} of them the kernel's own threads")
    say(_ROW.format("PID", "PARENT", "S", "NAME"))
    for one in shown:
        say(_ROW.format(one.pid, one.parent, one.state, _name(one)))
    for line in itertools.chain.from_iterable(str(one).splitlines() for one in log):
        say(printable(line))
    return Exit.DONE


def _name(one: LinuxTask) -> str:
    return printable(one.name if one.user_memory else f"[{one.name}]")
