#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The man pages, and the scripts that complete words in shells, from the parsers.

    scripts/man_pages.py FOLDER     man/man1/livedump*.1 and completions/livedump.SHELL there

`make man` calls it; packages take the files from build/."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from argparse_manpage.manpage import Manpage

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from livedumpfs import __version__  # noqa: E402
from livedumpfs.cli.completion_command import SHELLS, script  # noqa: E402
from livedumpfs.cli.examples import EXAMPLES  # noqa: E402
from livedumpfs.cli.main import build_parser  # noqa: E402
from livedumpfs.cli.options_file import SYSTEM_FILE  # noqa: E402
from livedumpfs.cli.parser import Parser  # noqa: E402

_FILES: Final = (
    (SYSTEM_FILE, "options for all users"),
    ("~/.config/livedump/config.toml", "options of one user, which go before those"),
)
_ENDS: Final = (
    ("0", "done; the dump, where the command makes or judges one, is consistent"),
    ("1", "failed, and there is no dump"),
    ("2", "usage: the arguments make no sense"),
    ("3", "the dump is not consistent, or not a dump"),
    ("130", "interrupted"),
)


def escaped(text: str) -> str:
    """Text for roff, within a line."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


def terms(rows: Iterator[tuple[str, str]]) -> str:
    """Rows of a term and its meaning."""
    return "\n".join(f".TP\n.B {escaped(term)}\n{escaped(said)}" for term, said in rows)


def page(parser: argparse.ArgumentParser, summary: str, more: dict[str, str]) -> str:
    """One man page. `more`: further sections, in roff."""
    parser.epilog = None
    title = {"project_name": "livedumpfs", "version": __version__, "description": summary}
    made = Manpage(parser, {**title, "manual_title": "livedumpfs"})
    made.prog = parser.prog.replace(" ", "-")
    for heading, content in more.items():
        made.add_section(heading, "=", content)
    # A wrapped line may begin with a word such as .elf, which roff would take for a request.
    return re.sub(r"^\.(?=[a-z])", r"\\&.", str(made), flags=re.MULTILINE)


def command_page(parser: argparse.ArgumentParser, summary: str) -> str:
    """Of one command."""
    name = parser.prog.partition(" ")[2]
    also = "livedump-fleet" if " " in name else "livedump"
    more = {"examples": terms(iter(EXAMPLES[name])), "see also": f".BR {escaped(also)} (1)"}
    return page(parser, summary, more)


def group_page(parser: Parser, summary: str, rows: Iterator[tuple[str, str]]) -> str:
    """Of a command with commands of its own, which have pages of theirs."""
    inner = parser.prog != "livedump"
    own = Parser(
        prog=parser.prog,
        description=parser.description,
        usage=f"{parser.prog} [-h] [-q] [--no-color] COMMAND ...",
    )
    more = {"commands": terms(rows)}
    if inner:
        more["examples"] = terms(iter(EXAMPLES[parser.prog.partition(" ")[2]]))
        more["see also"] = ".BR livedump (1)"
    else:
        own.add_argument("--version", action="version", help="print the version")
        more |= {"exit status": terms(iter(_ENDS)), "files": terms(iter(_FILES))}
    return page(own, summary, more)


def pages(parser: Parser, summary: str) -> Iterator[tuple[str, str]]:
    """(file name, text) of the command and of all in it."""
    name = f"{parser.prog.replace(' ', '-')}.1"
    inner = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not inner:
        yield name, command_page(parser, summary)
        return
    told = {one.dest: str(one.help) for one in inner[0]._choices_actions}
    prog = parser.prog.replace(" ", "-")
    yield name, group_page(parser, summary, ((f"{prog}-{one}(1)", told[one]) for one in told))
    for one, text in told.items():
        yield from pages(inner[0].choices[one], text)


def main() -> int:
    """Returns the exit code."""
    usage = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    usage.add_argument("folder", metavar="FOLDER", type=Path)
    folder: Path = usage.parse_args().folder
    summary = "dump the memory of a running machine as it was at one instant"
    made = dict(pages(build_parser(), summary))
    scripts = {f"livedump.{shell}": script(build_parser(), shell) + "\n" for shell in SHELLS}
    for inner, files in (("man/man1", made), ("completions", scripts)):
        (folder / inner).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / inner / name).write_text(text)
    print(f"{len(made)} man pages and {len(scripts)} completions in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
