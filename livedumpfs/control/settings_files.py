# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of control/ that INIT goes by: their meaning, and how they are written.

Each row of the table of options (livedumpfs/settings.py) is a file. Names and meaning of output,
type, buffer_size, consistent and use_interrupt are those of SUSE's sysfs interface, so that its
script works here: what is no row, or is one under another name or in another unit. Each file holds
one value and a newline; some show, after an empty line, what else could be there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from livedumpfs import abi
from livedumpfs.errors import UsageError
from livedumpfs.kinds import AUTO, Choice, FilePath, Flag
from livedumpfs.option import Option, rows_of
from livedumpfs.request import read_init
from livedumpfs.settings import DumpSettings
from livedumpfs.units import PAGE_SIZE, parse_size

_AUTO = "auto"
_FLAG: Final = Flag()
_PATH: Final = FilePath()
TYPES = (_AUTO, "memdump", "filedump", "none")
"""What a target may be: whatever output names; a block device; a regular file; memory only."""


@dataclass(frozen=True)
class Settings:
    """One set of values; immutable, so that INIT and a writer never see half of another's."""

    dump: DumpSettings
    output: str = ""
    """Path of the target; "": not set."""
    type: str = _AUTO
    use_interrupt: bool = False
    """SUSE: START stops the CPUs by an interrupt. Kept and shown, and changes nothing: a machine
    here has one way to stand still at an exact instruction, its own quiesce."""


class Setting(NamedTuple):
    """One file: its text now, and the settings after a write to it (ValueError)."""

    show: Callable[[Settings], str]
    parse: Callable[[Settings, str], Settings]


def names(settings: type[DumpSettings] = DumpSettings) -> tuple[str, ...]:
    """The files, without "control/"."""
    return tuple(_files(settings))


def may_be_empty(settings: Settings, name: str) -> bool:
    """Whether an empty value means something to that file."""
    try:
        change(settings, name, "")
    except ValueError:
        return False
    return True


def show(settings: Settings, name: str) -> str:
    """What reading the file gives."""
    return _files(type(settings.dump))[name].show(settings) + "\n"


def change(settings: Settings, name: str, text: str) -> Settings:
    """The settings once `text` has been written to the file. UsageError EINVAL: no such value."""
    try:
        changed = _files(type(settings.dump))[name].parse(settings, text)
        changed.dump.check_values()
        return changed
    except ValueError as error:
        raise UsageError(f"control/{name}: {error}", errno=errno.EINVAL) from error


def _files(settings: type[DumpSettings]) -> dict[str, Setting]:
    """SUSE's, then the rows that are not one of them."""
    rows = {one.file: _row_file(one) for one in rows_of(settings) if one.file not in _SUSE}
    return {**_SUSE, **rows}


# ------------------------------------------------------------------------ the files


def _row_file(one: Option) -> Setting:
    return Setting(
        lambda s: one.kind.show(getattr(s.dump, one.name)),
        lambda s, text: _with(s, one.name, one.kind.parse(text)),
    )


def _with(settings: Settings, name: str, value: Any) -> Settings:
    return replace(settings, dump=replace(settings.dump, **{name: value}))


def _show_type(settings: Settings) -> str:
    return "\n".join((settings.type, "", "Possible types:", *TYPES))


def _show_buffer(settings: Settings) -> str:
    pool = settings.dump.pool
    pages = pool if isinstance(pool, str) else pool // PAGE_SIZE
    # A slot holds a granule; below a few of them every fault waits for the disk.
    granule = max(settings.dump.granule, PAGE_SIZE) // PAGE_SIZE
    return f"{pages}\n\nMinimal: {granule}\nRecommended: {max(granule * 64, 16384)}"


def _pool(text: str) -> int | str:
    return AUTO if text == AUTO else _pages(text)


def _pages(text: str) -> int:
    """SUSE's unit is the page, and it rounds up to a power of two; with a unit it is a size."""
    size = int(text) * PAGE_SIZE if text.isascii() and text.isdigit() else parse_size(text)
    if not 0 < size < 2**63:
        raise ValueError(f"not a number of pages above 0: {text!r}")
    return max(PAGE_SIZE, 1 << (size - 1).bit_length())


def _set_consistent(settings: Settings, text: str) -> Settings:
    """SUSE: whether a lost page is worth a warning. Here: whether any may be lost at all."""
    if not _FLAG.parse(text):
        return _with(settings, "policy", "fail")
    return _with(settings, "policy", "block") if settings.dump.policy == "fail" else settings


_SUSE: Final[dict[str, Setting]] = {
    "output": Setting(
        lambda s: s.output, lambda s, text: replace(s, output=_PATH.parse(text) or "")
    ),
    "type": Setting(_show_type, lambda s, text: replace(s, type=Choice(TYPES).parse(text))),
    "buffer_size": Setting(_show_buffer, lambda s, text: _with(s, "pool", _pool(text))),
    "consistent": Setting(lambda s: str(int(s.dump.policy != "fail")), _set_consistent),
    "use_interrupt": Setting(
        lambda s: str(int(s.use_interrupt)),
        lambda s, text: replace(s, use_interrupt=_FLAG.parse(text)),
    ),
}


# ---------------------------------------------------------------------- typed INIT


def from_init(settings: Settings, request: abi.Init) -> Settings:
    """The settings with what a typed INIT says over them. UsageError EINVAL: out of range."""
    known = sum(abi.InitFlag)
    if request.flags & ~known or request.reserved:
        raise UsageError("INIT: a flag or a reserved member is not 0", errno=errno.EINVAL)
    rows = rows_of(type(settings.dump))
    values = read_init(request, rows)
    # What control/ has for other formats waits there; what the caller itself asks for must fit.
    format = values.get("format", settings.dump.format)
    for one in rows:
        if one.name in values and not one.goes_with(format):
            raise UsageError(
                f"INIT: {one.name} {values[one.name]} does not go with format {format}",
                errno=errno.EINVAL,
            )
    if values.get("compression", settings.dump.compression) != settings.dump.compression:
        values.setdefault("level", 0)  # that of control/ is the other compression's
    changed = replace(settings, dump=replace(settings.dump, **values))
    changed.dump.check_values()
    return changed
