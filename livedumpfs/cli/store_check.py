# SPDX-License-Identifier: GPL-2.0-or-later
"""`verify` of a whole store."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from livedumpfs.cli import text
from livedumpfs.cli.facts import tell_facts
from livedumpfs.cli.outcome import Exit, complain, note
from livedumpfs.cli.output import say
from livedumpfs.cli.progress import display
from livedumpfs.errors import printable
from livedumpfs.units import format_size

if TYPE_CHECKING:
    from livedumpfs.dumpfile import StoreReport


def verify_whole_store(args: argparse.Namespace) -> int:
    """Print the verdict of each dump, and of the chunks. Exit status 3 when any of it is wrong; a
    dump that is torn, and whose record says so, is not."""
    from livedumpfs.dumpfile import set_aside_damaged, verify_store
    from livedumpfs.stores import open_store

    with open_store(args.target) as store, display("verify") as shown:
        size = store.about.chunk_size
        report = verify_store(store, lambda done, total: shown.update(done * size, total * size, 0))
        aside = set_aside_damaged(store, report) if args.repair else 0
    code: int = Exit.NOT_VALID if report.problems else Exit.DONE
    if args.json:
        code = tell_facts("verify", _as_json(args.target, report), code)
    else:
        _print(report)
    if args.repair:
        note(f"{text.count(aside, 'damaged chunk')} set aside, for a dump to put again")
    if report.problems:
        count = f"{len(report.problems)} problems: " if len(report.problems) > 1 else ""
        complain(f"{args.target}: {count}{'; '.join(report.problems)}")
    return code


def _print(report: StoreReport) -> None:
    for dump in report.dumps:
        say(f"{printable(dump.name)}  {dump.verdict}")
        for identity, why in dump.wrong.items():
            say(f"  {identity.hex()}  {printable(why)}")
    count, size = report.unneeded
    rows = [
        ("checked", f"{text.count(report.chunks, 'chunk')} right, {format_size(report.size)}"),
        ("unneeded", f"{text.count(count, 'chunk')} of {format_size(size)}" if count else ""),
    ]
    say(text.table(rows))


def _as_json(name: str, report: StoreReport) -> dict[str, Any]:
    count, size = report.unneeded
    return {
        "store": name,
        "ok": not report.problems,
        "checked": report.chunks,
        "unneeded": {"chunks": count, "bytes": size},
        "dumps": [
            {
                "name": dump.name,
                "verdict": dump.verdict,
                "wrong_chunks": {identity.hex(): why for identity, why in dump.wrong.items()},
                "lost_pages": [list(r) for r in dump.pages],
                "problems": dump.problems,
            }
            for dump in report.dumps
        ],
    }
