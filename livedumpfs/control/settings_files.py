# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of control/ that INIT goes by: their meaning, and how they are written.

Names and meaning of output, type, buffer_size, consistent and use_interrupt are those of SUSE's
sysfs interface, so that its script works here; the others are ours. Each file holds one value and
a newline; some show, after an empty line, what else could be there.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NamedTuple

from livedumpfs import abi
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import UsageError
from livedumpfs.units import PAGE_SIZE, parse_duration, parse_size

_AUTO = "auto"
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
    """One file: its text now, and the settings after somebody has written to it (ValueError)."""

    show: Callable[[Settings], str]
    parse: Callable[[Settings, str], Settings]


def names() -> tuple[str, ...]:
    """The files, without "control/"."""
    return tuple(_SETTINGS)


def may_be_empty(settings: Settings, name: str) -> bool:
    """Whether an empty value means something to that file."""
    try:
        change(settings, name, "")
    except ValueError:
        return False
    return True


def show(settings: Settings, name: str) -> str:
    """What reading the file gives."""
    return _SETTINGS[name].show(settings) + "\n"


def change(settings: Settings, name: str, text: str) -> Settings:
    """The settings once `text` has been written to the file. UsageError EINVAL: no such value."""
    try:
        changed = _SETTINGS[name].parse(settings, text)
        changed.dump.check_values()
        return changed
    except ValueError as error:
        raise UsageError(f"control/{name}: {error}", errno=errno.EINVAL) from error


# ------------------------------------------------------------------ kinds of values


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"not a number: {text!r}")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"neither 0 nor 1: {text!r}")
    return text == "1"


def _one_of(text: str, possible: tuple[str, ...]) -> str:
    if text not in possible:
        raise ValueError(f"{text!r} is none of {', '.join(possible)}")
    return text


def _path(text: str) -> str:
    if len(text.encode(errors="surrogateescape")) >= abi.PATH_MAX:
        raise ValueError("the path is too long")
    if "\0" in text:
        raise ValueError("the path has a NUL in it")
    return text


def _seconds(text: str) -> float:
    value = float(text)
    if not (0 < value < 1e9 and math.isfinite(value)):
        raise ValueError(f"not a time in seconds above 0: {text!r}")
    return value


def _pages(text: str) -> int:
    """SUSE's unit is the page, and it rounds up to a power of two; with a unit it is a size."""
    size = _whole(text) * PAGE_SIZE if text.isdigit() else parse_size(text)
    if not 0 < size < 2**63:
        raise ValueError(f"not a number of pages above 0: {text!r}")
    return max(PAGE_SIZE, 1 << (size - 1).bit_length())


# ------------------------------------------------------------------------ the files


def _legend(value: str, title: str, possible: tuple[str, ...]) -> str:
    return "\n".join((value, "", title, *possible))


def _choice(name: str, possible: tuple[str, ...]) -> Setting:
    def parse(settings: Settings, text: str) -> Settings:
        return _with(settings, name, _one_of(text, possible))

    return Setting(lambda s: str(getattr(s.dump, name)), parse)


def _number(name: str, read: Callable[[str], float]) -> Setting:
    return Setting(
        lambda s: f"{getattr(s.dump, name):.15g}", lambda s, text: _with(s, name, read(text))
    )


def _with(settings: Settings, name: str, value: Any) -> Settings:
    return replace(settings, dump=replace(settings.dump, **{name: value}))


def _members(enum: type[IntEnum]) -> tuple[str, ...]:
    return tuple(one.name.lower() for one in enum)


def _show_buffer(settings: Settings) -> str:
    pages = settings.dump.pool // PAGE_SIZE
    # A slot holds a granule; below a few of them every fault waits for the disk.
    granule = max(settings.dump.granule, PAGE_SIZE) // PAGE_SIZE
    return f"{pages}\n\nMinimal: {granule}\nRecommended: {max(granule * 64, 16384)}"


def _set_consistent(settings: Settings, text: str) -> Settings:
    """SUSE: whether a lost page is worth a warning. Here: whether any may be lost at all."""
    if not _flag(text):
        return _with(settings, "policy", "fail")
    return _with(settings, "policy", "block") if settings.dump.policy == "fail" else settings


def _set_backend(settings: Settings, text: str) -> Settings:
    chosen = _one_of(text, (_AUTO, *_members(abi.Backend)))
    return _with(settings, "backend", "" if chosen == _AUTO else chosen)


_SETTINGS: dict[str, Setting] = {
    "output": Setting(lambda s: s.output, lambda s, text: replace(s, output=_path(text))),
    "type": Setting(
        lambda s: _legend(s.type, "Possible types:", TYPES),
        lambda s, text: replace(s, type=_one_of(text, TYPES)),
    ),
    "buffer_size": Setting(_show_buffer, lambda s, text: _with(s, "pool", _pages(text))),
    "consistent": Setting(lambda s: str(int(s.dump.policy != "fail")), _set_consistent),
    "use_interrupt": Setting(
        lambda s: str(int(s.use_interrupt)), lambda s, text: replace(s, use_interrupt=_flag(text))
    ),
    "format": _choice("format", _members(abi.Format)),
    "policy": _choice("policy", _members(abi.Policy)),
    "arming": _choice("arming", _members(abi.Arming)),
    "backend": Setting(lambda s: s.dump.backend or _AUTO, _set_backend),
    "compression": _choice("compression", _members(abi.Compression)),
    "level": _number("level", _whole),
    "threads": _number("threads", _whole),
    "table": _choice("table", _members(abi.Table)),
    "max_age": _number("max_age", parse_duration),
    "granule": _number("granule", parse_size),
    "sweep_rate": _number("sweep_rate", parse_size),
    "spill_limit": _number("spill_limit", parse_size),
    "stall_deadline": _number("stall_deadline", _seconds),
    "init_deadline": _number("init_deadline", _seconds),
    "force": Setting(
        lambda s: str(int(s.dump.force)), lambda s, text: _with(s, "force", _flag(text))
    ),
    "buffered": Setting(
        lambda s: str(int(s.dump.buffered)), lambda s, text: _with(s, "buffered", _flag(text))
    ),
    "sidecar": Setting(
        lambda s: str(s.dump.sidecar or ""),
        lambda s, text: _with(s, "sidecar", _path(text) or None),
    ),
}


# ---------------------------------------------------------------------- typed INIT


def from_init(settings: Settings, request: abi.Init) -> Settings:
    """The settings with what a typed INIT says over them. UsageError EINVAL: out of range."""
    known = sum(abi.InitFlag)
    if request.flags & ~known or request.reserved:
        raise UsageError("INIT: a flag or a reserved member is not 0", errno=errno.EINVAL)
    values: dict[str, Any] = {}
    for name, enum in _CHOICES.items():
        number = getattr(request, name)
        if number:
            try:
                values[name] = enum(number).name.lower()
            except ValueError as error:
                raise UsageError(
                    f"INIT: there is no {name} {number}", errno=errno.EINVAL
                ) from error
    values |= {name: n for member, name in _NUMBERS.items() if (n := getattr(request, member))}
    for member, name in _TIMES.items():
        if getattr(request, member):
            values[name] = getattr(request, member) / 1e9
    if request.flags & abi.InitFlag.FORCE:
        values["force"] = True
    if request.flags & abi.InitFlag.BUFFERED:
        values["buffered"] = True
    # What control/ has for other formats waits there; what the caller itself asks for must fit.
    format = values.get("format", settings.dump.format)
    for name in ("compression", "level", "threads", "table"):
        foreign = format != ("raw" if name == "table" else "kdump")
        if name in values and foreign:
            raise UsageError(
                f"INIT: {name} {values[name]} does not go with format {format}", errno=errno.EINVAL
            )
    if values.get("compression", settings.dump.compression) != settings.dump.compression:
        values.setdefault("level", 0)  # that of control/ is the other compression's
    changed = replace(settings, dump=replace(settings.dump, **values))
    changed.dump.check_values()
    return changed


_CHOICES: dict[str, type[IntEnum]] = {
    "policy": abi.Policy,
    "format": abi.Format,
    "arming": abi.Arming,
    "backend": abi.Backend,
    "compression": abi.Compression,
    "table": abi.Table,
}
_NUMBERS = {
    "granule_size": "granule",
    "pool_size": "pool",
    "spill_limit": "spill_limit",
    "sweep_rate": "sweep_rate",
    "level": "level",
    "threads": "threads",
}
"""Members of struct livedump_init, and the settings that they are."""
_TIMES = {"stall_deadline_ns": "stall_deadline", "max_age_ns": "max_age"}
