# SPDX-License-Identifier: GPL-2.0-or-later
"""`fleet map`: one question to all dumps of a fleet dump."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from livedumpfs.cli import fleet_cluster
from livedumpfs.cli.arguments import Commands, add_command
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.outcome import Exit, complain, note
from livedumpfs.cli.output import is_terminal, say, shielded
from livedumpfs.errors import UsageError, printable

if TYPE_CHECKING:
    from livedumpfs.fleet import Manifest, Mapped


def add_commands(own: Commands) -> None:
    """Register it."""
    parser = add_command(
        own,
        "map",
        "Run a script over all dumps of a fleet dump, on the workers. One that defines run(dump) "
        "is called with each dump, another one is a drgn script.",
        run_map,
    )
    parser.add_argument(
        "script", metavar="SCRIPT", help="a Python file; or tasks, shared, diff, which are built in"
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="the .fleet.json of a fleet dump")
    fleet_cluster.add_client(parser)
    parser.add_argument(
        "--before", metavar="MANIFEST", help="with diff: the fleet dump to compare with"
    )
    parser.add_argument(
        "--vmlinux",
        metavar="FILE",
        help="kernel with debug symbols, a path on the workers; for tasks of Linux guests and for "
        "drgn scripts",
    )
    parser.add_argument("--parquet", metavar="FILE", help="write the table there, too")
    add_json(parser)


def run_map(args: argparse.Namespace) -> int:
    """Print the table. Exit code 1: some members have no rows."""
    from livedumpfs.fleet import read_manifest
    from livedumpfs.fleet.parquet import write_parquet

    if bool(args.before) != (args.script == "diff"):
        raise UsageError("--before goes with diff, and diff needs it")
    found = _map(args, read_manifest(args.manifest))
    if args.parquet:
        write_parquet(args.parquet, found.rows)
    if not args.json:
        show_rows(found.rows)
    for name, why in found.problems.items():
        complain(f"{name}: {why}")
    code = Exit.FAILED if found.problems else Exit.DONE
    if args.json:
        return tell_facts("fleet map", {"rows": found.rows, "problems": found.problems}, code)
    return code


def _map(args: argparse.Namespace, manifest: Manifest) -> Mapped:
    from livedumpfs.fleet import read_manifest
    from livedumpfs.fleet.fleet_map import map_diff, map_script, map_shared, map_tasks
    from livedumpfs.fleet.script import read_script

    before = read_manifest(args.before) if args.before else None
    text = "" if args.script in ("tasks", "shared", "diff") else read_script(args.script)
    with fleet_cluster.connected(args) as client:
        root = args.allow_root
        if args.script == "tasks":
            return map_tasks(client, manifest, vmlinux=args.vmlinux, allow_root=root)
        if args.script == "shared":
            return map_shared(client, manifest, allow_root=root)
        if before is not None:
            return map_diff(client, manifest, before, allow_root=root)
        return map_script(
            client, text, args.script, manifest, vmlinux=args.vmlinux, allow_root=root
        )


def show_rows(rows: Sequence[dict[str, Any]]) -> None:
    """As a table: by rich on a terminal, else words and blanks in columns."""
    from livedumpfs.fleet.parquet import columns_of

    columns = columns_of(rows)
    if not columns:
        note("no rows")
        return
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    if is_terminal(sys.stdout):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns)
        for line in cells:
            table.add_row(*map(Text, line))
        Console(file=shielded(sys.stdout)).print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in [columns, *cells]:
        words = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        say("  ".join(words).rstrip())


def _cell(value: Any) -> str:
    return "" if value is None else printable(str(value))
