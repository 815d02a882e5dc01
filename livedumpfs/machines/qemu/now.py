# SPDX-License-Identifier: GPL-2.0-or-later
"""Reasons why a running QEMU cannot be dumped now, whatever its command line was."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from livedumpfs.errors import MachineError, os_cause
from livedumpfs.machines.qemu.qmp_commands import QmpCommands
from livedumpfs.machines.qemu.refusals import (
    HOST_DEVICES,
    KERNEL,
    why_not,
    why_not_disk,
    why_not_object,
)

_DEVICES: Final = ("/machine/peripheral", "/machine/peripheral-anon")
"""QOM paths of the devices from -device and device_add."""
_OBJECTS: Final = "/objects"
"""QOM path of those from -object and object-add."""
_SHARES: Final = "child<ivshmem"
_CHILD: Final = re.compile(r"child<(.*)>")
_NETWORK: Final = re.compile(r"\btype=(vhost-user|vhost-vdpa|passt,vhost-user)\b")
_MIGRATING: Final = frozenset({"setup", "active", "device", "cancelling"})
_BACKGROUND: Final = "background-snapshot"


def check_now(monitor: QmpCommands) -> None:
    """MachineError: EBUSY, a background snapshot is under way; ENOTSUP, a device or memory was
    plugged in with which a dump would not be complete."""
    if _copies_memory(monitor):
        raise MachineError(
            "QEMU is making a background snapshot of the guest",
            errno=errno.EBUSY,
            hint="wait for it, or `migrate_cancel`",
        )
    if monitor.status() == "suspended":
        raise MachineError(
            "the guest is suspended, and QEMU cannot hold it so",
            errno=errno.EBUSY,
            hint="wake it up",
        )
    for found in writers(monitor):
        raise found
    if _list(monitor, "query-memory-devices"):
        raise MachineError(
            "memory was plugged into the guest, which the dump would not have",
            errno=errno.ENOTSUP,
            hint="unplug it, or take such dumps with `livedump attach SOCKET`, by a QMP socket of "
            "this QEMU",
        )


def writers(monitor: QmpCommands, *, kernel: bool = True) -> Iterator[MachineError]:
    """ENOTSUP: each thing that writes the guest's memory unseen. `kernel`: so does the host's
    kernel for the process of QEMU (vhost). MachineError."""
    for one in _list(monitor, "query-named-block-nodes", flat=True):
        why = why_not_disk(one["drv"])
        if why:
            yield MachineError(
                f"the disk {one['node-name']} has the driver {one['drv']}: {why}",
                errno=errno.ENOTSUP,
                hint="let the kernel drive it",
            )
    given = [("device", one, why_not(one)) for one in _kinds(monitor, _DEVICES)]
    given += [("object", one, why_not_object(one)) for one in _kinds(monitor, (_OBJECTS,))]
    for what, kind, why in given:
        if why and (kernel or why != KERNEL):
            yield MachineError(
                f"the guest was given a{'n' * (what == 'object')} {what} {kind}: {why}",
                errno=errno.ENOTSUP,
                hint="unplug it",
            )
    network = _NETWORK.search(monitor.hmp("info network"))
    if network:
        yield MachineError(
            f"the guest was given a network of type {network[1]}, which writes its memory itself",
            errno=errno.ENOTSUP,
            hint="take it away (netdev_del)",
        )


def check_files(pid: int, *, kernel: bool = True) -> None:
    """MachineError: ENOTSUP, QEMU has a host device open that writes its memory, such as the vhost
    of a network card that was added over the monitor; ECONNRESET, QEMU has ended. `kernel`: see
    writers."""
    for path in _open_files(pid):
        why = next((why for start, why in HOST_DEVICES if path.startswith(start)), None)
        if why and (kernel or why != KERNEL):
            raise MachineError(
                f"QEMU has {path} open: {why}", errno=errno.ENOTSUP, hint="use vhost=off; unplug it"
            )


def _open_files(pid: int) -> list[str]:
    """Paths of the files that its descriptors refer to. MachineError."""
    folder = f"/proc/{pid}/fd"
    found = []
    try:
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # closed since
                found.append(os.readlink(f"{folder}/{name}"))
    except (FileNotFoundError, ProcessLookupError) as error:
        raise MachineError("QEMU has ended", errno=errno.ECONNRESET) from error
    except OSError as error:
        code = error.errno or errno.EIO
        raise MachineError(
            f"cannot see what QEMU has open: {os_cause(code)}", errno=code
        ) from error
    return found


def has_vmcoreinfo(monitor: QmpCommands) -> bool:
    """Whether QEMU has the device by which a guest reports its VMCOREINFO's place. MachineError."""
    return "vmcoreinfo" in _kinds(monitor, _DEVICES)


def peers_memory(monitor: QmpCommands) -> frozenset[str]:
    """Ids of the memory backends that guests share with each other by ivshmem: none is RAM of this
    one, and others store to it. MachineError."""
    found = set()
    for path in _DEVICES:
        for one in _list(monitor, "qom-list", path=path):
            if _CHILD.fullmatch(one["type"]) and one["type"].startswith(_SHARES):
                where: dict[str, object] = {"path": f"{path}/{one['name']}", "property": "memdev"}
                with contextlib.suppress(MachineError):  # of a server: it has none
                    found.add(str(monitor.execute("qom-get", where)).rpartition("/")[2])
    return frozenset(found)


def _list(monitor: QmpCommands, command: str, **arguments: object) -> list[Any]:
    found = monitor.execute(command, arguments)
    assert isinstance(found, list)
    return found


def _copies_memory(monitor: QmpCommands) -> bool:
    """Whether QEMU write-protects the memory for a background snapshot: our swap would remove that
    protection."""
    found = monitor.execute("query-migrate")
    if not isinstance(found, dict) or found.get("status") not in _MIGRATING:
        return False
    capabilities = _list(monitor, "query-migrate-capabilities")
    return any(one["capability"] == _BACKGROUND and one["state"] for one in capabilities)


def _kinds(monitor: QmpCommands, paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        for one in _list(monitor, "qom-list", path=path):
            match = _CHILD.fullmatch(one["type"])
            if match:
                yield match[1]
