# SPDX-License-Identifier: GPL-2.0-or-later
"""The parser with all commands, and the handling of their exceptions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from livedumpfs import __version__
from livedumpfs.cli import (
    compare_command,
    convert_command,
    dump_command,
    host_command,
    mount_command,
    qemu_command,
    status_command,
    steps_command,
    verify_command,
)
from livedumpfs.cli.outcome import (
    FAILURES,
    Exit,
    complain,
    exit_code,
    interrupted,
    sentence,
)
from livedumpfs.cli.output import say, tell


class Parser(argparse.ArgumentParser):
    """Reports argument errors in the form of all other errors."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message} (see `{self.prog} --help`)")
        raise SystemExit(Exit.USAGE)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints help and version."""
        if message:
            (say if file is sys.stdout else tell)(message.removesuffix("\n"))


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; tests/unit/test_docs.py compares it with docs/cli.md."""
    parser = Parser(
        prog="livedump",
        description="Dump the memory of a running machine as it was at one instant.",
        epilog="Exit codes: 0 done, and the dump is consistent; 1 failed, and there is no dump; "
        "2 usage; 3 the dump is not consistent; 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"livedump {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for group in (
        host_command,
        qemu_command,
        dump_command,
        steps_command,
        status_command,
        verify_command,
        mount_command,
        convert_command,
        compare_command,
    ):
        group.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code."""
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except KeyboardInterrupt as error:
        complain(interrupted(error))
        return exit_code(error)
    except FAILURES as error:
        complain(sentence(error))
        return exit_code(error)
    return code
