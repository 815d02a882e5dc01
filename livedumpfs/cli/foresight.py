# SPDX-License-Identifier: GPL-2.0-or-later
"""`--check` of `qemu` and `attach`: one layout for what would happen, and why it would not."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from livedumpfs.cli import text
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.outcome import Exit, option
from livedumpfs.cli.output import say
from livedumpfs.errors import LivedumpError, UsageError

Rows = Iterable[tuple[str, str]]


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add `--check` and `--json`."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="only say what a dump would be, and each reason why there would be none; nothing is "
        "touched",
    )
    add_json(parser, "of --check: for programs")


def expect_check(args: argparse.Namespace) -> None:
    """UsageError: an option of --check without it."""
    if args.json and not args.check:
        raise UsageError("--json goes with --check")


def tell_check(rows: Rows, refused: Sequence[LivedumpError], *, as_json: bool) -> int:
    """Print it. Returns the exit code: FAILED where a dump would be refused."""
    reasons = [one.worded(option) for one in refused]
    code = Exit.FAILED if reasons else Exit.DONE
    kept = [(label, value) for label, value in rows if value]
    if as_json:
        content = {"possible": not reasons, "refused": reasons, **dict(kept)}
        return tell_facts("check", content, code)
    verdict = f"no dump can be taken: {text.count(len(reasons), 'reason')}"
    kept += [("refused", one) for one in reasons]
    say(text.table([*kept, ("verdict", verdict if reasons else "a dump can be taken")]))
    return code
