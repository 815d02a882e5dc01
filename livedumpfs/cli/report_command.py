# SPDX-License-Identifier: GPL-2.0-or-later
"""`report`: a dump, or the dump of a running host, as one HTML page."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from livedumpfs.cli.arguments import DUMP_HELP, Commands, add_command, add_device, add_sidecar
from livedumpfs.cli.convert_command import open_output
from livedumpfs.cli.identity import add_identity
from livedumpfs.cli.outcome import Exit, complain, note
from livedumpfs.cli.progress import display
from livedumpfs.errors import UsageError

if TYPE_CHECKING:
    from livedumpfs.dumpfile import DumpFile
    from livedumpfs.html_report import Changes, TaskList


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "report",
        "Write one HTML page about a dump, or about the dump of a running host. The page needs no "
        "network and no script.",
        run_report,
    )
    parser.add_argument(
        "dump", metavar="DUMP", nargs="?", help=f"{DUMP_HELP}; without it: a running host"
    )
    parser.add_argument(
        "-o", "--out", metavar="FILE", required=True, help="file to make; - for standard output"
    )
    parser.add_argument(
        "--against", metavar="DUMP", help="another dump: the page shows what has changed since"
    )
    parser.add_argument(
        "--vmlinux",
        metavar="FILE",
        help="kernel of a Linux guest with debug symbols, with which drgn lists its tasks; for "
        "riscv64 none is needed",
    )
    add_device(parser)
    add_identity(parser)
    add_sidecar(parser)
    parser.add_argument(
        "--sidecar-against",
        metavar="FILE",
        help="file that describes the other dump, if that is a raw one",
    )


def run_report(args: argparse.Namespace) -> int:
    """Exit status 3 unless the dump is consistent; the page is written all the same. Of a host 0,
    whatever its dump is."""
    if args.dump and args.device:
        raise UsageError("DUMP and --device exclude each other", hint="a page is about one of them")
    if args.sidecar_against and not args.against:
        raise UsageError("--sidecar-against goes with --against")
    if args.dump is None:
        return _of_host(args)
    from livedumpfs.dumpfile import open_dump, open_filtered
    from livedumpfs.html_report import (
        LinuxMemory,
        TaskList,
        of_dump,
        of_filtered,
        render,
        task_list,
    )

    filtered = open_filtered(args.dump)
    if filtered:
        with filtered:
            if args.against:
                raise UsageError(f"{args.dump} cannot be compared: makedumpfile has left pages out")
            subject = of_filtered(filtered)
        _write(args.out, render(subject, TaskList(problem="crash and drgn list them.")))
    else:
        with open_dump(args.dump, args.sidecar) as dump, _compared(args, dump) as found:
            subject = of_dump(dump)
            memory = LinuxMemory(dump.meta, dump.memory_map, dump.read_physical)
            tasks = task_list(memory, args.vmlinux)
            page = render(subject, tasks, found)
        _tell(tasks, args)
        _write(args.out, page)
    if subject.verdict == "consistent":
        return Exit.DONE
    complain(f"{args.dump}: the dump is {subject.verdict}")
    return Exit.NOT_VALID


@contextlib.contextmanager
def _compared(args: argparse.Namespace, dump: DumpFile) -> Iterator[Changes | None]:
    """With the other dump, if there is one."""
    if args.against is None:
        yield None
        return
    from livedumpfs.dumpfile import open_dump
    from livedumpfs.html_report import changes

    with (
        open_dump(args.against, args.sidecar_against) as other,
        display("compare") as shown,
    ):
        yield changes(dump, other, lambda done, total: shown.update(done, total, 0))


def _of_host(args: argparse.Namespace) -> int:
    from livedumpfs.cli.host_facts import host_said, host_tasks
    from livedumpfs.client import Client
    from livedumpfs.html_report import of_host, render

    for name, value in (("--against", args.against), ("--sidecar", args.sidecar)):
        if value:
            raise UsageError(f"{name} goes with a DUMP, not with a running host")
    with Client(args.device) as client:
        tasks = host_tasks(client, args.vmlinux)
        page = render(of_host(host_said(client)), tasks)
    _tell(tasks, args)
    _write(args.out, page)
    return Exit.DONE


def _tell(tasks: TaskList, args: argparse.Namespace) -> None:
    """Where tasks were asked for, a page without them is worth a line."""
    if args.vmlinux and tasks.problem:
        note(f"no tasks: {tasks.problem}")


def _write(path: str, page: str) -> None:
    """TargetError: there is such a file, or it cannot be made."""
    with open_output(path) as out:
        out.write(page.encode())
        out.finish()
