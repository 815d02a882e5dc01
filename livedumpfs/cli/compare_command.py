# SPDX-License-Identifier: GPL-2.0-or-later
"""`compare`: compares two dumps. Its exit codes are those of cmp."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from livedumpfs.cli import text
from livedumpfs.cli.arguments import DUMP_HELP, Commands, add_command, natural
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.identity import add_identity
from livedumpfs.cli.outcome import FAILURES, Exit, complain, exit_code, sentence
from livedumpfs.cli.output import say
from livedumpfs.cli.progress import display
from livedumpfs.units import PAGE_SIZE

if TYPE_CHECKING:
    from livedumpfs.dumpfile import Comparison

DEFAULT_RANGES = 64
WORDS = ("equal", "different", "missing in A", "missing in B", "missing in both")
"""A text for each value of Difference."""


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "compare",
        "Compare two dumps, page by page. Exit code 0: equal, 1: different, 2: trouble.",
        run_compare,
    )
    parser.add_argument("a", metavar="A", help=DUMP_HELP)
    parser.add_argument("b", metavar="B", help="another")
    add_identity(parser)
    parser.add_argument(
        "--sidecar", metavar="FILE", help="file that describes A, if that is a raw dump"
    )
    parser.add_argument(
        "--sidecar-b", metavar="FILE", help="file that describes B, if that is a raw dump"
    )
    parser.add_argument(
        "--ranges",
        type=natural,
        default=DEFAULT_RANGES,
        metavar="N",
        help=f"print so many ranges at the most; default: {DEFAULT_RANGES}",
    )
    add_json(parser)


def run_compare(args: argparse.Namespace) -> int:
    """Exit status: 0 equal, 1 different, 3 not a dump, 2 any other failure."""
    try:
        from livedumpfs.dumpfile import compare_dumps, open_dump

        with (
            open_dump(args.a, args.sidecar) as a,
            open_dump(args.b, args.sidecar_b) as b,
            display("compare") as shown,
        ):
            found = compare_dumps(
                a, b, lambda done, total: shown.update(done, total, 0), max_ranges=args.ranges
            )
    except FAILURES as error:
        complain(sentence(error))
        code = exit_code(error)
        return Exit.TROUBLE if code == Exit.FAILED else code
    code = Exit.DONE if found.equal else Exit.DIFFERENT
    if args.json:
        return tell_facts("compare", comparison_facts(found), code)
    print_comparison(found)
    return code


def comparison_facts(found: Comparison) -> dict[str, Any]:
    """For programs. Ranges are [start, end) of physical addresses."""
    words = dict(zip(found.pages, WORDS, strict=True))
    ranges = [{"start": r.start, "end": r.end, "kind": words[r.kind]} for r in found.ranges]
    return {
        "equal": found.equal,
        "pages": {words[kind]: number for kind, number in found.pages.items()},
        "ranges": ranges,
        "range_count": found.range_count,
    }


def print_comparison(found: Comparison) -> None:
    """Print the ranges by physical address, their ends inclusive, then the number of pages of each
    kind."""
    words = dict(zip(found.pages, WORDS, strict=True))
    for r in found.ranges:
        pages = text.count((r.end - r.start) // PAGE_SIZE, "page")
        say(f"{r.start:#014x}-{r.end - 1:#014x}  {words[r.kind]}, {pages}")
    more = found.range_count - len(found.ranges)
    if more:
        say(f"and {text.count(more, 'more range')}")
    rows = [(words[kind], text.count(n, "page")) for kind, n in found.pages.items()]
    say(text.table(rows))
