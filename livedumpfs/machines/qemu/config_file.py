# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of -readconfig: read, as if each group were an option, and written."""

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
"""By the name of the group: the option that says the same, where it is called otherwise."""
_OWN: Final = "livedump-monitor"


def read_config(path: str) -> list[QemuOption] | None:
    """The groups as options, without what QEMU will refuse. None: it can be read only once, and
    that is for QEMU."""
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
    """A QMP server at that path. From a file it is one more: QEMU takes -qmp and -mon on its
    command line as a word against the monitor that it makes by itself. MachineError."""
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
