# SPDX-License-Identifier: GPL-2.0-or-later
"""Files for -readconfig: read, as if each group were an option, and written."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Final

from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu.qemu_options import QemuOption, write_values

_GROUP: Final = re.compile(r'\[(?P<name>[^\]"]{1,63}?)(?: "(?P<id>[^"]{1,63})")?\]')
_VALUE: Final = re.compile(r'\s*(?P<key>\S{1,63}) = "(?P<value>[^"]{0,1023})"')
_OPTIONS: Final = {"boot-opts": "boot", "memory": "m", "sandbox": "sandbox", "smp-opts": "smp"}
"""Name of a group -> the option with the same effect, where the names differ."""
_OWN: Final = "livedump-monitor"


def read_config(path: str) -> list[QemuOption] | None:
    """The file's groups as options, without those that QEMU will refuse. None: the file can be read
    only once (a pipe), and QEMU has to read it."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return list(_groups(file.read()))
    except OSError:
        return []


def _groups(text: str) -> Iterator[QemuOption]:
    name, values = "", dict[str, str]()
    for line in text.splitlines():
        if group := _GROUP.match(line):
            if name:
                yield QemuOption(name, write_values(values))
            name = _OPTIONS.get(group["name"], group["name"])
            values = {"id": group["id"]} if group["id"] else {}
        elif not line.startswith("#") and (found := _VALUE.match(line)):
            values[found["key"]] = found["value"]
    if name:
        yield QemuOption(name, write_values(values))


def monitor_config(socket: str) -> str:
    """The text of a file that adds a QMP server at that path. On the command line, -qmp or -mon
    would keep QEMU from making its default monitor; in a file they do not. MachineError."""
    if '"' in socket or "\n" in socket:
        raise MachineError(
            f"QEMU takes no quotation marks in paths of files: {socket}",
            hint="set TMPDIR to another directory",
        )
    return (
        f'[chardev "{_OWN}"]\n  backend = "socket"\n  path = "{socket}"\n'
        f'  server = "on"\n  wait = "off"\n[mon "{_OWN}"]\n  chardev = "{_OWN}"\n'
        '  mode = "control"\n'
    )
