# SPDX-License-Identifier: GPL-2.0-or-later
"""`completion`: a script for a shell, made from the parser by shtab."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from livedumpfs.cli.arguments import Commands, add_command
from livedumpfs.cli.candidates import COMMAND, KINDS
from livedumpfs.cli.outcome import answer

if TYPE_CHECKING:
    from livedumpfs.cli.parser import Parser

SHELLS: Final = ("bash", "zsh", "fish")
_WITH_FILES: Final = ("targets", "dumps")
"""Kinds that are files, too."""
_KIND_OF: Final = {
    "HOST": "hosts",
    "TARGET": "targets",
    "OUT": "targets",
    "A": "dumps",
    "B": "dumps",
    "STORE": "dumps",
    "DUMP": "dumps",
    "MANIFEST": "files",
    "FILE": "files",
    "SOCKET": "files",
    "SCRIPT": "files",
    "DIR": "folders",
    "FOLDER": "folders",
    "PLACE": "folders",
}
"""By the name of the value in the help."""
_READERS: Final = ("info", "verify", "mount", "convert")
"""Commands whose TARGET is a dump that is there."""


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "completion",
        "Print a script that completes commands, options, hosts, targets and dumps in a shell.",
        run_completion,
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run_completion(args: argparse.Namespace) -> int:
    """Print it."""
    return answer(script(args.parser, args.shell))


def script(parser: Parser, shell: str) -> str:
    """The script for a shell. ImportError: there is no shtab."""
    import shtab

    for command, action in _values(parser, ""):
        kind = _KIND_OF.get(str(action.metavar or "").upper())
        kind = "dumps" if kind == "targets" and command in _READERS else kind
        if kind:
            action.complete = _how(kind)  # type: ignore[attr-defined]
    text: str = shtab.complete(parser, shell=shell)
    return text.rstrip("\n")


def _values(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.Action]]:
    """Each option and argument with a value, with its command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner, one in action.choices.items():
                yield from _values(one, f"{name} {inner}".strip())
        elif action.nargs != 0 and not action.choices:
            yield name, action


def _how(kind: str) -> dict[str, Any]:
    """What shtab is told of a value."""
    import shtab

    if kind not in KINDS:
        known: dict[str, Any] = shtab.FILE if kind == "files" else shtab.DIRECTORY
        return known
    files = kind in _WITH_FILES
    # By the word "files" in its name shtab's script knows that a folder needs no blank behind it.
    name = f"_livedump_{kind}" + "_or_files" * files
    ask = f"livedump {COMMAND} {kind}"
    return {
        "bash": name,
        "zsh": name,
        "fish": f"({name})",
        "preamble": {
            "bash": _function(f"{name}() {{", f'{ask} "$1"', 'compgen -f -- "$1"' * files, "}"),
            "zsh": _function(
                f"{name}() {{",
                f'compadd -- ${{(f)"$({ask} "$PREFIX" 2>/dev/null)"}}',
                "_files" * files,
                "}",
            ),
            "fish": _function(
                f"function {name}",
                f"{ask} (commandline -ct)",
                "__fish_complete_path (commandline -ct)" * files,
                "end",
            ),
        },
    }


def _function(head: str, asked: str, files: str, end: str) -> str:
    """A shell's function: what the program offers, then files."""
    quiet = asked if "2>" in asked else f"{asked} 2>/dev/null"
    lines = [head, f"  {quiet}", *([f"  {files}"] if files else []), end]
    return "\n".join(lines) + "\n"
