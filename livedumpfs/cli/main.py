# SPDX-License-Identifier: GPL-2.0-or-later
"""The parser with all commands, and what becomes of their exceptions."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from livedumpfs import __version__
from livedumpfs.cli import compare, convert, dump, host, mount, qemu, status, steps, target
from livedumpfs.cli.outcome import Exit, complain, exit_code, sentence
from livedumpfs.errors import LivedumpError


class Parser(argparse.ArgumentParser):
    """Argument errors in our form, whatever the command."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message} (see `{self.prog} --help`)")
        raise SystemExit(Exit.USAGE)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; tests/unit/test_docs.py compares it with docs/cli.md."""
    parser = Parser(
        prog="livedump",
        description="Dump the memory of a running machine as it was at one instant.",
        epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 the dump is not valid.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"livedump {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for group in (host, qemu, dump, steps, status, target, mount, convert, compare):
        group.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Nobody reads any more, as with `| head`; keep Python from trying again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return Exit.FAILED
    except (LivedumpError, OSError, ValueError) as error:
        complain(sentence(error))
        return exit_code(error)
