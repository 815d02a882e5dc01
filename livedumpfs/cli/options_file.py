# SPDX-License-Identifier: GPL-2.0-or-later
"""Options from files: /etc/livedump.toml, and ~/.config/livedump/config.toml, which goes before it.

A key is the long name of an option. At the top it is for each command that has the option, in a
table for the command of that name. What is typed goes before a variable, and that before a file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from livedumpfs.cli.colour import VARIABLE as NO_COLOUR
from livedumpfs.cli.identity import VARIABLE as IDENTITY
from livedumpfs.cli.outcome import note
from livedumpfs.cli.parser import Parser
from livedumpfs.errors import UsageError, os_cause
from livedumpfs.hosts.device import DEVICE_VARIABLE

VARIABLE: Final = "LIVEDUMP_CONFIG"
"""The only file to read; empty: none."""
SYSTEM_FILE: Final = "/etc/livedump.toml"
_TYPED_ONLY: Final = ("force", "help", "repair", "version")
"""What a file would do unseen."""
_BY_VARIABLE: Final = {
    "device": DEVICE_VARIABLE,
    "identity": IDENTITY,
    "no-color": NO_COLOUR,
    "scheduler": "LIVEDUMP_FLEET",
    "tls": "LIVEDUMP_FLEET_TLS",
}
"""Options whose default is a variable: the file sets that where it is not set."""


def config_files() -> list[Path]:
    """Those to read, the strongest last. One that VARIABLE names must be there."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return [Path(named)] if named else []
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return [Path(SYSTEM_FILE), Path(home) / "livedump" / "config.toml"]


def read_config(parser: Parser) -> None:
    """Make the files' values the defaults of the parser's commands. UsageError: what is in one
    makes no sense; the sentence names file and key."""
    for file in config_files():
        content = _content(file)
        if content:
            _Reader(file).into(parser, content, "")


def _content(file: Path) -> dict[str, Any]:
    """{}: there is none, or another user may have written it: `su` leaves root the home of
    another."""
    if not file.exists() and VARIABLE not in os.environ:
        return {}
    import tomllib  # slow to load, and most computers have no such file

    try:
        found = os.stat(file)
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o002:
            note(f"{file} is not read: other users may write it")
            return {}
        with open(file, "rb") as opened:
            return tomllib.load(opened)
    except FileNotFoundError:
        raise UsageError(f"{file} is not there", hint=f"{VARIABLE} names it") from None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {os_cause(error.errno or 0)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error


class _Reader:
    def __init__(self, file: Path) -> None:
        self.file = file

    def into(self, parser: Parser, content: Mapping[str, Any], table: str) -> None:
        """Give the values of a table to its command, or to all commands below it."""
        inner = _commands_of(parser)
        tables = {key: one for key, one in content.items() if isinstance(one, dict)}
        for key, value in content.items():
            if key not in tables:
                self._give(parser, key, value, table)
        for key, one in tables.items():
            if key not in inner:
                raise self._unknown(f"table [{_joined(table, key)}]", key, inner)
            self.into(inner[key], one, _joined(table, key))

    def _give(self, parser: Parser, key: str, value: Any, table: str) -> None:
        takers = [one for one in _all_of(parser) if f"--{key}" in one._option_string_actions]
        if key in _TYPED_ONLY and takers:
            raise UsageError(f"{self.file}: {key} cannot be in a file", hint="type it")
        if not takers:
            known = {name[2:] for one in _all_of(parser) for name in one._option_string_actions}
            raise self._unknown(f"option {key}{_of(table)}", key, known)
        for one in takers:
            action = one._option_string_actions[f"--{key}"]
            where = f"{self.file}: {key}{_of(table)}"
            found = _value(one, action, value, where)
            if key in _BY_VARIABLE:
                if found:
                    one.variables[_BY_VARIABLE[key]] = "1" if found is True else str(found)
            elif action.default is not argparse.SUPPRESS:
                one.take_from_file(action, found)

    def _unknown(self, what: str, word: str, known: Any) -> UsageError:
        import difflib

        near = difflib.get_close_matches(word, [one for one in known if len(one) > 1], 1)
        hint = f"did you mean {near[0]}?" if near else "see docs/cli.md, Files of options"
        return UsageError(f"{self.file}: there is no {what}", hint=hint)


def _joined(table: str, key: str) -> str:
    return f"{table}.{key}" if table else key


def _of(table: str) -> str:
    return f" of [{table}]" if table else ""


def _commands_of(parser: Parser) -> dict[str, Parser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _all_of(parser: Parser) -> Iterator[Parser]:
    """The command, and those in it."""
    yield parser
    for one in set(_commands_of(parser).values()):
        yield from _all_of(one)


def _value(parser: Parser, action: argparse.Action, value: Any, where: str) -> Any:
    """As the command line would have read it."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{where} must be true or false")
        return value
    several = isinstance(action, argparse._AppendAction)
    values = value if isinstance(value, list) and several else [value]
    if any(isinstance(one, bool | dict | list) for one in values):
        raise UsageError(f"{where} must be text or a number{', or a list' if several else ''}")
    found = []
    for one in values:
        try:
            read = parser._get_value(action, str(one))
            parser._check_value(action, read)
        except argparse.ArgumentError as error:
            raise UsageError(f"{where}: {error.message}") from None
        found.append(read)
    return found if several else found[0]
