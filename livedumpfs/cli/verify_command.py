# SPDX-License-Identifier: GPL-2.0-or-later
"""`info` and `verify`: a dump's description of itself, and a check whether it is true."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from livedumpfs.cli import text
from livedumpfs.cli.arguments import Commands, add_command, add_sidecar
from livedumpfs.cli.outcome import Exit, answer, complain
from livedumpfs.cli.output import say
from livedumpfs.cli.progress import display

if TYPE_CHECKING:
    from livedumpfs.cli.proof import ProofReport
    from livedumpfs.dumpfile import VerifyReport


def add_commands(commands: Commands) -> None:
    """Register this group."""
    info = add_command(commands, "info", "Describe a dump on a target.", run_info)
    info.add_argument("target", metavar="TARGET", help="block device or file with a dump")
    add_sidecar(info)
    add_verbose(info)
    info.add_argument("--json", action="store_true", help="all of it, for programs")
    verify = add_command(
        commands,
        "verify",
        "Read a whole dump back and check it: checksums, and the built-in guest's ledger.",
        run_verify,
    )
    verify.add_argument("target", metavar="TARGET", help="block device or file with a dump")
    add_sidecar(verify)
    add_verbose(verify)
    verify.add_argument("--json", action="store_true", help="all of it, for programs")


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add `-v`: long lists are printed in full."""
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also the ranges of memory and of its pages"
    )


def run_info(args: argparse.Namespace) -> int:
    """Print the description. Exit status 3 unless the dump is consistent."""
    from livedumpfs.dumpfile import describe_dump, format_description, open_dump

    with open_dump(args.target, args.sidecar) as dump:
        described = describe_dump(dump)
    code: int = Exit.DONE if described["verdict"] == "consistent" else Exit.NOT_VALID
    if code:
        complain(f"{args.target}: the dump is {described['verdict']}")
    if args.json:
        return answer(json.dumps(described, indent=2), code)
    say(format_description(described, verbose=args.verbose))
    return code


def run_verify(args: argparse.Namespace) -> int:
    """Print the description and the checks. Exit status 3, and one sentence with all errors, if
    there are any."""
    from livedumpfs.cli.proof import prove_dump
    from livedumpfs.dumpfile import describe_dump, format_description, open_dump

    with open_dump(args.target, args.sidecar) as dump, display("verify") as shown:
        report = prove_dump(dump, lambda done, total: shown.update(done, total, 0))
        described = describe_dump(dump)
    code: int = Exit.DONE if report.ok else Exit.NOT_VALID
    if args.json:
        code = answer(json.dumps({**described, "verified": as_json(report)}, indent=2), code)
    else:
        rows = [("checked", found_right(report))]
        if report.ledger:
            rows.append(("ledger", report.ledger.message))
        say(f"{format_description(described, verbose=args.verbose)}\n{text.table(rows)}")
    if report.problems:
        complain(f"{args.target}: {in_one_sentence(report.problems)}")
    return code


def in_one_sentence(problems: Sequence[str]) -> str:
    """All errors in one sentence; their number comes first if there are several."""
    count = f"{len(problems)} problems: " if len(problems) > 1 else ""
    return count + "; ".join(problems)


def found_right(report: VerifyReport) -> str:
    """How much of the memory passed the check of its checksums."""
    checks = report.checksums
    return f"{text.count(checks.checked, 'granule')} right, {text.count(checks.holes, 'hole')}"


def as_json(report: ProofReport) -> dict[str, object]:
    """The result of verify, with the dump's description."""
    checks = report.checksums
    return {
        "ok": report.ok,
        "checked": checks.checked,
        "holes": checks.holes,
        "bad": checks.bad,
        "stale": checks.stale,
        "unreadable": checks.unreadable,
        "ledger": report.ledger.message if report.ledger else None,
        "problems": report.problems,
    }
