# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of a QEMU command line, read as QEMU reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from livedumpfs.errors import UsageError

# fmt: off
FLAGS: Final = frozenset({
    "S", "alt-grab", "async-teardown", "audio-help", "ctrl-grab", "curses", "daemonize",
    "enable-fips", "enable-kvm", "enable-sync-profile", "full-screen", "h", "help", "jitdump",
    "mem-prealloc", "no-acpi", "no-fd-bootchk", "no-frame", "no-hpet", "no-quit", "no-reboot",
    "no-shutdown", "no-user-config", "nodefaults", "nographic", "nouserconfig", "old-param",
    "only-migratable", "perfmap", "portrait", "preconfig", "s", "semihosting", "singlestep",
    "snapshot", "usb", "version", "win2k-hack", "xen-attach", "xen-domid-restrict",
})
# fmt: on
"""Options that take no value; every other one takes the next word."""
_IMPLIED: Final = {
    "accel": "accel",
    "blockdev": "driver",
    "device": "driver",
    "drive": "file",
    "m": "size",
    "machine": "type",
    "net": "type",
    "netdev": "type",
    "nic": "type",
    "numa": "type",
    "object": "qom-type",
}
"""The key of a first value that has none."""
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)([bkmgtpe]?)", re.IGNORECASE | re.ASCII)
_POWERS: Final = "bkmgtpe"

Values = Mapping[str, str]
"""The keys of one option."""


@dataclass(frozen=True)
class Option:
    """One option; `name` without its dashes, -M as "machine". `value` as it was written, empty
    for a flag."""

    name: str
    value: str

    @property
    def values(self) -> Values:
        """The value's keys, from JSON or key=value. UsageError: JSON that is none."""
        return read_values(self.name, self.value)

    def __str__(self) -> str:
        return f"-{self.name} {self.value}".rstrip()


def read_options(words: Sequence[str]) -> list[Option]:
    """The words behind the program. UsageError: the last option misses its value."""
    found: list[Option] = []
    rest = iter(words)
    for word in rest:
        # Anything without a dash is a disk image; a dash alone would be QEMU's error.
        if not word.startswith("-") or word == "-":
            continue
        name = word.removeprefix("-").removeprefix("-")
        value = "" if name in FLAGS else next(rest, None)
        if value is None:
            raise UsageError(f"QEMU's option {word} misses its value")
        found.append(Option("machine" if name == "M" else name, value))
    return found


def read_values(name: str, value: str) -> dict[str, str]:
    """Keys of the value of option `name`: booleans are "on" and "off", the members of JSON objects
    have dotted names. UsageError: it starts like JSON and is none."""
    if value.startswith("{"):
        return _read_json(name, value)
    keys: dict[str, str] = {}
    for index, part in enumerate(_split(value)):
        key, equals, content = part.partition("=")
        if equals:
            keys[key] = content
        elif index == 0 and name in _IMPLIED:
            keys[_IMPLIED[name]] = part
        elif part:
            keys[part] = "on"
    return keys


def _split(value: str) -> list[str]:
    """At single commas; two of them stand for one. No word of a command line has a NUL."""
    return [part.replace("\0", ",") for part in value.replace(",,", "\0").split(",")]


def _read_json(name: str, value: str) -> dict[str, str]:
    try:
        content = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"QEMU's option -{name} has a value that is no JSON: {error}") from error
    return _flatten(content, "")


def _flatten(content: Mapping[str, object], prefix: str) -> dict[str, str]:
    keys: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            keys.update(_flatten(value, f"{prefix}{key}."))
        elif isinstance(value, bool):
            keys[prefix + key] = "on" if value else "off"
        else:
            keys[prefix + key] = str(value)
    return keys


def quote(value: str) -> str:
    """A value as one part of key=value: commas doubled."""
    return value.replace(",", ",,")


def is_on(value: str | None, *, default: bool = False) -> bool:
    """A boolean as QEMU takes it; `default`: when the key is not there."""
    return default if value is None else value in {"on", "yes", "true", "y"}


def parse_qemu_size(text: str, *, unit: str = "b") -> int:
    """Bytes of "512", "1.5G", "0x1000"; `unit`: of a number without suffix. UsageError."""
    if re.fullmatch(r"0x[0-9a-f]+", text, re.IGNORECASE | re.ASCII):
        return int(text, 16)
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no size that QEMU takes", hint="write 512M or 2G")
    power = _POWERS.index((match[2] or unit).lower())
    return int(Fraction(match[1]) * 1024**power)
