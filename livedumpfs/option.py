# SPDX-License-Identifier: GPL-2.0-or-later
"""Option: one row of the table of options in settings.py. This module is a leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

from livedumpfs.kinds import ValueKind

T = TypeVar("T")


class Option(NamedTuple):
    """One row of the table."""

    name: str
    """Name of the member of DumpSettings."""
    default: str
    """The default, as text for people."""
    shown: str
    """The default, as its file of control/ shows it."""
    kind: ValueKind
    help: str
    """The help text of the command line, a few words."""
    more: str
    """More text for the documents, in Markdown; links as in docs/cli.md."""
    noun: str
    """The name of the option in errors."""
    phrase: str
    """The name with the value, which stands for {}."""
    flag: str
    file: str
    """Name of its file in control/."""
    ioctl: str | None
    """Member of struct livedump_init; for a Flag, the flag LIVEDUMP_INIT_*. None: a client cannot
    set it, only the command that starts the host, or a write to control/."""
    status: str | None
    """Member of struct livedump_status."""
    core: str | None
    """Member of struct ldfs_dump_config with the unchanged value."""
    formats: tuple[str, ...]
    """The formats that have the option; (): all."""

    def goes_with(self, format: str) -> bool:
        """Whether a dump of that format has the option."""
        return not self.formats or format in self.formats

    def check(self, value: Any) -> None:
        """UsageError: the value is out of range."""
        self.kind.check(self.noun, value)


class _Made:
    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def made(make: Callable[[], T]) -> T:
    """A default that is computed at each creation of the settings."""
    return cast(T, _Made(make))


def option(
    default: T,
    kind: ValueKind,
    help: str,
    *,
    more: str = "",
    usual: str = "",
    noun: str = "",
    phrase: str = "",
    flag: str = "",
    file: str = "",
    ioctl: str | None = None,
    status: str | None = None,
    core: str | None = None,
    formats: tuple[str, ...] = (),
) -> T:
    """A row, as the right side of a member of a dataclass. Names that are not given are derived
    from the member's name. `usual`: the default, as text for people."""
    now = default.make() if isinstance(default, _Made) else default
    row = {
        "default": usual or kind.usual(now), "shown": kind.show(now), "kind": kind,
        "help": help, "more": more or help, "noun": noun, "phrase": phrase, "flag": flag,
        "file": file, "ioctl": ioctl, "status": status, "core": core, "formats": formats,
    }  # fmt: skip
    if isinstance(default, _Made):
        return cast(T, dataclasses.field(default_factory=default.make, metadata=row))
    return dataclasses.field(default=default, metadata=row)


_ROWS: dict[type, tuple[Option, ...]] = {}


def rows_of(settings: type) -> tuple[Option, ...]:
    """The rows of a dataclass, in the order of its members."""
    if settings not in _ROWS:
        _ROWS[settings] = _read_rows(settings)
    return _ROWS[settings]


def _read_rows(settings: type) -> tuple[Option, ...]:
    return tuple(_row(one.name, dict(one.metadata)) for one in dataclasses.fields(settings))


def _row(name: str, given: dict[str, Any]) -> Option:
    noun = given["noun"] or name.replace("_", " ")
    named = {
        "noun": noun,
        "phrase": given["phrase"] or f"{noun} {{}}",
        "flag": given["flag"] or f"--{name.replace('_', '-')}",
        "file": given["file"] or name,
    }
    return Option(name=name, **{**given, **named})
