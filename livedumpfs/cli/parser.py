# SPDX-License-Identifier: GPL-2.0-or-later
"""Parser: argparse with our errors, groups of commands in the help, and examples."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

from livedumpfs.cli.colour import VARIABLE
from livedumpfs.cli.examples import EXAMPLES
from livedumpfs.cli.outcome import Exit, complain
from livedumpfs.cli.output import say, tell
from livedumpfs.settings import OPTION

EXAMPLES_HEAD: Final = "examples:\n"


class Help(argparse.HelpFormatter):
    """Examples keep their lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(EXAMPLES_HEAD):
            return "".join(indent + line for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """Reports argument errors in the form of all other errors, with the nearest word there is."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{"formatter_class": Help, "allow_abbrev": False, **more})
        name = self.prog.partition(" ")[2]
        self.groups: list[tuple[str, list[argparse.Action]]] = []
        """Headings of the help, and the commands below each."""
        self.variables: dict[str, str] = {}
        """Of the environment, as files of options would have them."""
        self._usual: dict[argparse.Action, Any] = {}
        """The defaults that values of a file have replaced."""
        if name in EXAMPLES:
            self.epilog = self.epilog or _as_text(EXAMPLES[name])
        _add_manner(self, inner=bool(name))

    def error(self, message: str) -> NoReturn:
        complain(f"{message} (see `{self.prog} --help`)")
        raise SystemExit(Exit.USAGE)

    def format_help(self) -> str:
        """As argparse, but the commands stand below their headings."""
        if not self.groups:
            return super().format_help()
        shown = self._get_formatter()
        shown.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        shown.add_text(self.description)
        for heading, commands in self.groups:
            shown.start_section(heading)
            shown.add_arguments(commands)
            shown.end_section()
        shown.start_section("options")
        shown.add_arguments([one for one in self._actions if one.option_strings])
        shown.end_section()
        shown.add_text(self.epilog)
        return shown.format_help()

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse, but the command itself names the option that it does not know."""
        for variable, value in self.variables.items():
            os.environ.setdefault(variable, value)
        found, unknown = super().parse_known_args(args, namespace)
        self._drop_what_does_not_fit(found)
        if unknown and self._subparsers is None:
            named = unknown[0].partition("=")[0]
            if named.startswith("-"):
                near = _nearest(named, self._option_string_actions)
                self.error(f"no such option: {named}{near}")
            self.error(f"unexpected argument: {unknown[0]}")
        return found, unknown

    def take_from_file(self, action: argparse.Action, value: Any) -> None:
        """Make a value of a file of options the default."""
        self._usual.setdefault(action, action.default)
        action.default, action.required = value, False
        for group in self._mutually_exclusive_groups:
            if action in group._group_actions:
                group.required = False

    def _drop_what_does_not_fit(self, found: argparse.Namespace) -> None:
        """Values of a file that what was typed excludes: they are general, and that is not."""

        def is_usual(one: argparse.Action) -> bool:
            value = getattr(found, one.dest, None)
            return value is None or value is False or value == one.default

        format = getattr(found, "format", None)
        for action, usual in self._usual.items():
            row = OPTION.get(action.dest)
            foreign = bool(row and format and not row.goes_with(format))
            others = (
                other
                for group in self._mutually_exclusive_groups
                if action in group._group_actions
                for other in group._group_actions
                if other is not action
            )
            if is_usual(action) and (foreign or not all(map(is_usual, others))):
                setattr(found, action.dest, usual)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            near = _nearest(str(value), action.choices, f"{self.prog} ")
            self.error(f"no such command: {value}{near}")
        super()._check_value(action, value)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints help and version."""
        if message:
            (say if file is sys.stdout else tell)(message.removesuffix("\n"))


def _nearest(word: str, known: Iterable[str], before: str = "") -> str:
    import difflib

    found = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean `{before}{found[0]}`?" if found else ""


def _as_text(examples: Sequence[tuple[str, str]]) -> str:
    lines = (f"  {typed}\n      {meaning}\n" for typed, meaning in examples)
    return EXAMPLES_HEAD + "".join(lines)


# ------------------------------------------------------------------------- how it speaks


class _NoColour(argparse.Action):
    """Sets the variable by which all go that have colours."""

    def __call__(self, *_: Any) -> None:
        os.environ[VARIABLE] = "1"


def _add_manner(parser: argparse.ArgumentParser, *, inner: bool) -> None:
    """Add `--quiet` and `--no-color`, which stand before or after the command's name."""
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=argparse.SUPPRESS if inner else False,
        help="no progress, no notes, no report: errors, and the facts that were asked for",
    )
    parser.add_argument(
        "--no-color",
        action=_NoColour,
        nargs=0,
        default=argparse.SUPPRESS,
        help=f"no colours, as with the variable {VARIABLE}",
    )
