#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of options in docs/, from the rows of livedumpfs/settings.py.

    scripts/option_tables.py            say which document is not as the rows say, exit code 1
    scripts/option_tables.py --update   write them

A table lies between two comments, `<!-- NAME: begin, ... -->` and `<!-- NAME: end -->`.
tests/unit/test_option_tables.py holds the documents to the rows."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from livedumpfs.kinds import Choice, Flag  # noqa: E402
from livedumpfs.option import Option  # noqa: E402
from livedumpfs.settings import OPTION, OPTIONS, PACKED  # noqa: E402

_BLOCK: Final = "<!-- {0}: begin, made by scripts/option_tables.py -->\n\n{1}\n\n<!-- {0}: end -->"
_WIDTH: Final = 100


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["--"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _formats(formats: Sequence[str]) -> str:
    return ", ".join(f"`{one}`" for one in formats) or "all"


def _option(one: Option) -> str:
    """The option as users type it."""
    kind = one.kind
    value = r"\|".join(kind.words) if isinstance(kind, Choice) else kind.metavar
    return f"`{one.flag} {value}`" if value else f"`{one.flag}`"


def _typed(one: Option) -> str:
    """The member or flag of a typed INIT for the option."""
    if not one.ioctl:
        return "not there"
    return f"flag `{one.ioctl}`" if isinstance(one.kind, Flag) else f"`{one.ioctl}`"


def _meaning(one: Option) -> str:
    """The meaning, with the range where the option's own text lacks it."""
    return one.more if isinstance(one.kind, Choice | Flag) else f"{one.more} ({one.kind.values()})"


def _default(one: Option) -> str:
    return "off" if isinstance(one.kind, Flag) else one.default


def dump_options() -> str:
    """The options of `livedump dump`."""
    rows = [
        (_option(one), _formats(one.formats), _default(one), _meaning(one))
        for one in OPTIONS
        if one.ioctl
    ]
    return _table(("option", "format", "default", "meaning"), rows)


def host_options() -> str:
    """The options that only the command that starts a host has."""
    rows = [(_option(one), _default(one), _meaning(one)) for one in OPTIONS if not one.ioctl]
    return _table(("option", "default", "meaning"), rows)


def convert_options() -> str:
    """The options of `livedump convert` for compressed formats."""
    rows = [
        (_option(one), _formats(PACKED), _default(one), _meaning(one))
        for one in (OPTION[name] for name in ("compression", "level", "threads"))
    ]
    return _table(("option", "format", "default", "meaning"), rows)


def client_names() -> str:
    """The options of dump_options, in a sentence."""
    return _names(one for one in OPTIONS if one.ioctl)


def host_names() -> str:
    """All options, in a sentence."""
    return _names(OPTIONS)


def _names(rows: Iterable[Option]) -> str:
    return textwrap.fill(
        ", ".join(f"`{one.flag}`" for one in rows) + ".", _WIDTH, break_on_hyphens=False
    )


def control_files() -> str:
    """The files of control/, without those that have their names from SUSE's interface."""
    rows = [
        (f"`{one.file}`", one.kind.values(), _shown(one), _formats(one.formats), _typed(one),
         one.more.replace("(control.md#", "(#"))
        for one in OPTIONS
        if one.file == one.name
    ]  # fmt: skip
    return _table(("file", "value", "default", "format", "typed INIT", "meaning"), rows)


def _shown(one: Option) -> str:
    """The default as the file shows it, and its meaning."""
    shown = f"`{one.shown}`" if one.shown else "empty"
    return shown if one.default.split()[0] == one.shown else f"{shown}: {one.default}"


BLOCKS: Final[dict[str, dict[str, Callable[[], str]]]] = {
    "docs/cli.md": {
        "options of dump": dump_options,
        "options of a host alone": host_options,
        "names of the options of a host": host_names,
        "names of the options of qemu": host_names,
        "names of the options of attach": host_names,
        "names of the options of init": client_names,
        "options of convert": convert_options,
    },
    "docs/control.md": {"files of the options": control_files},
}
"""Document -> the names of its tables, and the functions that make them."""


def made(name: str, text: str) -> str:
    """The document `name` with its tables made from the rows. ValueError: a table is missing, or
    there twice."""
    for block, make in BLOCKS[name].items():
        pattern = rf"<!-- {block}: begin.*?-->.*?<!-- {block}: end -->"
        new = _BLOCK.format(block, make())
        text, count = re.subn(pattern, lambda _, new=new: new, text, flags=re.DOTALL)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"{name} must have the table `{block}` once, not {count} times")
    return text


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--update", action="store_true", help="write what is not right")
    arguments = parser.parse_args()
    wrong = 0
    for name in BLOCKS:
        path = TOP / name
        old = path.read_text()
        new = made(name, old)
        if new != old and arguments.update:
            path.write_text(new)
            print(f"{name}: written")
        elif new != old:
            print(f"{name} is not as the rows say: run scripts/option_tables.py --update")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
