# SPDX-License-Identifier: GPL-2.0-or-later
"""`info` and `verify`: a dump's description of itself, and a check whether it is true."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from livedumpfs.cli import text
from livedumpfs.cli.arguments import DUMP_HELP, Commands, add_command, add_sidecar
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.identity import add_identity
from livedumpfs.cli.outcome import Exit, complain
from livedumpfs.cli.output import say
from livedumpfs.cli.progress import display
from livedumpfs.cli.store_check import verify_whole_store
from livedumpfs.errors import UsageError

if TYPE_CHECKING:
    from livedumpfs.cli.proof import ProofReport
    from livedumpfs.dumpfile import FilteredDump, VerifyReport


def add_commands(commands: Commands) -> None:
    """Register this group."""
    info = add_command(commands, "info", "Describe a dump on a target.", run_info)
    info.add_argument("target", metavar="TARGET", help=DUMP_HELP)
    add_sidecar(info)
    add_identity(info)
    add_verbose(info)
    add_json(info)
    verify = add_command(
        commands,
        "verify",
        "Read a whole dump back and check it: checksums, and the built-in guest's ledger.",
        run_verify,
    )
    verify.add_argument(
        "target", metavar="TARGET", help=f"{DUMP_HELP}; or a store, with all its dumps"
    )
    add_identity(verify)
    add_sidecar(verify)
    verify.add_argument(
        "--repair",
        action="store_true",
        help="of a whole store: set damaged chunks aside, so that the next dump that has their "
        "bytes puts them again",
    )
    add_verbose(verify)
    add_json(verify)


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add `-v`: long lists are printed in full."""
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also the ranges of memory and of its pages"
    )


def run_info(args: argparse.Namespace) -> int:
    """Print the description. Exit status 3 unless the dump is consistent."""
    from livedumpfs.dumpfile import describe_dump, format_description, open_dump, open_filtered

    filtered = open_filtered(args.target)
    if filtered:
        with filtered:
            return _filtered_info(args, filtered)
    with open_dump(args.target, args.sidecar) as dump:
        described = describe_dump(dump)
    code: int = Exit.DONE if described["verdict"] == "consistent" else Exit.NOT_VALID
    if code:
        complain(f"{args.target}: the dump is {described['verdict']}")
    if args.json:
        return tell_facts("info", described, code)
    say(format_description(described, verbose=args.verbose))
    return code


def run_verify(args: argparse.Namespace) -> int:
    """Print the description and the checks. Exit status 3, and one sentence with all errors, if
    there are any."""
    from livedumpfs.cli.proof import prove_dump
    from livedumpfs.dumpfile import describe_dump, format_description, open_dump, open_filtered
    from livedumpfs.stores import is_whole_store

    if is_whole_store(args.target):
        return verify_whole_store(args)
    if args.repair:
        raise UsageError("--repair goes with a whole store", hint="a dump alone has no chunks")
    filtered = open_filtered(args.target)
    if filtered:
        with filtered:
            return _filtered_verify(args, filtered)
    with open_dump(args.target, args.sidecar) as dump, display("verify") as shown:
        report = prove_dump(dump, lambda done, total: shown.update(done, total, 0))
        described = describe_dump(dump)
    code: int = Exit.DONE if report.ok else Exit.NOT_VALID
    if args.json:
        code = tell_facts("verify", {**described, "verified": as_json(report)}, code)
    else:
        rows = [("checked", found_right(report))]
        if report.ledger:
            rows.append(("ledger", report.ledger.message))
        say(f"{format_description(described, verbose=args.verbose)}\n{text.table(rows)}")
    if report.problems:
        complain(f"{args.target}: {in_one_sentence(report.problems)}")
    return code


def _filtered_info(args: argparse.Namespace, dump: FilteredDump) -> int:
    """`info` of a kdump from which makedumpfile has left pages out."""
    from livedumpfs.dumpfile import format_filtered

    described = dump.describe()
    code: int = Exit.DONE if described["verdict"] == "consistent" else Exit.NOT_VALID
    if code:
        complain(f"{args.target}: the dump is {described['verdict']}")
    if args.json:
        return tell_facts("info", described, code)
    say(format_filtered(described))
    return code


def _filtered_verify(args: argparse.Namespace, dump: FilteredDump) -> int:
    """`verify` of one: its checksum is of the whole file."""
    from livedumpfs.dumpfile import format_filtered

    with display("verify") as shown:
        problems = dump.problems(lambda done, total: shown.update(done, total, 0))
    code: int = Exit.NOT_VALID if problems else Exit.DONE
    described = dump.describe()
    if args.json:
        checked = {"ok": not problems, "problems": problems}
        code = tell_facts("verify", {**described, "verified": checked}, code)
    else:
        right = "the file is as makedumpfile wrote it" if not problems else "see the error"
        say(f"{format_filtered(described)}\n{'checked':<10}  {right}")
    if problems:
        complain(f"{args.target}: {in_one_sentence(problems)}")
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
