# SPDX-License-Identifier: GPL-2.0-or-later
"""Options of a QEMU command line, read as QEMU reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from livedumpfs.errors import LivedumpError, UsageError

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
"""Options that take no value."""
# fmt: off
VALUED: Final = frozenset({
    "D", "L", "M", "accel", "acpitable", "action", "add-fd", "append", "audio", "audiodev",
    "bios", "blockdev", "boot", "cdrom", "chardev", "chroot", "compat", "cpu", "d", "debugcon",
    "device", "dfilter", "display", "drive", "dtb", "dump-vmstate", "echr", "fda", "fdb",
    "fsdev", "fw_cfg", "g", "gdb", "global", "hda", "hdb", "hdc", "hdd", "icount", "incoming",
    "initrd", "iscsi", "k", "kernel", "loadvm", "m", "machine", "mem-path", "mon", "monitor",
    "msg", "mtdblock", "name", "net", "netdev", "nic", "numa", "object", "option-rom",
    "overcommit", "parallel", "pflash", "pidfile", "plugin", "prom-env", "qmp", "qmp-pretty",
    "qtest", "qtest-log", "readconfig", "rotate", "rtc", "runas", "run-with", "sandbox", "sd",
    "seed", "semihosting-config", "serial", "set", "shim", "smbios", "smp", "spice", "tpmdev",
    "trace", "usbdevice", "uuid", "vga", "virtfs", "vnc", "watchdog-action", "xen-domid",
})
# fmt: on
"""Options that take the next word. QEMU is asked about an option that is in neither set."""
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
"""Option -> the key of a first value that is written without one."""
Values = Mapping[str, str]
"""Keys and values of one option."""


@dataclass(frozen=True)
class QemuOption:
    """One option. `name`: without dashes; -M is "machine". `value`: as written, empty for a
    flag."""

    name: str
    value: str

    @property
    def values(self) -> Values:
        """Keys and values, from JSON or key=value. UsageError: the JSON is invalid."""
        return read_values(self.name, self.value)

    def __str__(self) -> str:
        return f"-{self.name} {self.value}".rstrip()


def read_options(
    words: Sequence[str],
    takes_value: Callable[[str], bool],
    misses_value: Callable[[str], LivedumpError],
) -> list[QemuOption]:
    """Parse the words after the program. `takes_value`: says whether an option that is not known
    here takes the next word; `misses_value`: makes the error when there is no next word."""
    found: list[QemuOption] = []
    rest = iter(words)
    for word in rest:
        # A word without a dash is a disk image; a dash alone is an error of QEMU's.
        if not word.startswith("-") or word == "-":
            continue
        name = word.removeprefix("-").removeprefix("-")
        valued = name in VALUED or (name not in FLAGS and takes_value(word))
        value = next(rest, None) if valued else ""
        if value is None:
            raise misses_value(word)
        found.append(QemuOption("machine" if name == "M" else name, value))
    return found


def read_values(name: str, value: str) -> dict[str, str]:
    """Keys and values of option `name`: booleans are "on" and "off", members of JSON objects get
    dotted names. UsageError: it starts like JSON, but is invalid."""
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
    """Split at single commas; two commas stand for one. NUL is free as a mark: no word has one."""
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


def write_values(values: Values) -> str:
    """The inverse of `read_values`."""
    return ",".join(f"{key}={quote(content)}" for key, content in values.items())


def quote(value: str) -> str:
    """A value as a part of key=value: commas are doubled."""
    return value.replace(",", ",,")


def is_on(value: str | None, *, default: bool = False) -> bool:
    """A boolean in QEMU's notations; `default`: when the key is missing."""
    return default if value is None else value in {"on", "yes", "true", "y"}
