# SPDX-License-Identifier: GPL-2.0-or-later
"""The parser with all commands, and the handling of their exceptions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from livedumpfs import __version__
from livedumpfs.cli import (
    attach_command,
    barrier_command,
    compare_command,
    completion_command,
    console_command,
    convert_command,
    doctor_command,
    dump_command,
    fleet_command,
    host_command,
    linux_command,
    mount_command,
    qemu_command,
    report_command,
    status_command,
    steps_command,
    store_command,
    verify_command,
    watch_command,
)
from livedumpfs.cli.identity import ONLY_ENCRYPTED
from livedumpfs.cli.options_file import read_config
from livedumpfs.cli.outcome import (
    FAILURES,
    complain,
    exit_code,
    interrupted,
    sentence,
)
from livedumpfs.cli.output import be_quiet
from livedumpfs.cli.parser import Parser

_GROUPS: Final = (
    ("run a machine", (host_command, console_command, qemu_command, attach_command)),
    ("dump it", (dump_command, steps_command, barrier_command, status_command, watch_command)),
    (
        "look at dumps",
        (
            *(verify_command, mount_command, convert_command, compare_command, linux_command),
            report_command,
        ),
    ),
    ("stores of dumps, and what runs here", (store_command,)),
    ("fleets", (fleet_command,)),
    ("this computer", (doctor_command, completion_command)),
)


def build_parser() -> Parser:
    """The whole command line; tests/unit/test_docs.py compares it with docs/cli.md."""
    parser = Parser(
        prog="livedump",
        description="Dump the memory of a running machine as it was at one instant.",
        epilog="`livedump COMMAND --help` has examples of each. Exit codes: 0 done, and the dump "
        "is consistent; 1 failed, and there is no dump; 2 usage; 3 the dump is not consistent; 130 "
        "interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"livedump {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for heading, modules in _GROUPS:
        before = len(commands._choices_actions)
        for one in modules:
            one.add_commands(commands)
        parser.groups.append((heading, commands._choices_actions[before:]))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code."""
    parser = build_parser()
    try:
        read_config(parser)
        args = parser.parse_args(argv)
        args.parser = parser  # for `completion`
        if getattr(args, "only_encrypted", False):
            os.environ[ONLY_ENCRYPTED] = "1"
        be_quiet(getattr(args, "quiet", False), getattr(args, "json", False))
        code: int = args.run(args)
    except KeyboardInterrupt as error:
        complain(interrupted(error))
        return exit_code(error)
    except FAILURES as error:
        complain(sentence(error))
        return exit_code(error)
    finally:
        be_quiet(False)  # a program that calls this may print by itself
    return code
