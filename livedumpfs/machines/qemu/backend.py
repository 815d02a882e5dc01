# SPDX-License-Identifier: GPL-2.0-or-later
"""The user's own memory backend, as the running QEMU reports it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from livedumpfs.machines.qemu.monitor import Monitor
from livedumpfs.machines.qemu.refusals import OR_ATTACH, refuse

_WITH_A_FILE: Final = frozenset(
    {"memory-backend-file", "memory-backend-memfd", "memory-backend-shm"}
)
_LEAVE_IT_OUT: Final = (
    "leave it out: livedump makes a shared memory backend; or write "
    f"-object memory-backend-memfd,id=ram,size=SIZE,share=on -machine memory-backend=ram{OR_ATTACH}"
)
_ASKED: Final = frozenset({"offset", "readonly", "share", "size", "type"})


def backend_size(monitor: Monitor, name: str) -> int:
    """Bytes of the memory backend with that id. UsageError: it cannot be dumped; MachineError."""
    path = f"/objects/{name}"
    known = monitor.execute("qom-list", {"path": path})
    assert isinstance(known, list)
    names = {one["name"] for one in known} & _ASKED
    found = {
        one: monitor.execute("qom-get", {"path": path, "property": one}) for one in sorted(names)
    }
    check_backend(name, found)
    return int(str(found["size"]))


def check_backend(name: str, properties: Mapping[str, object]) -> None:
    """UsageError: the backend cannot be dumped, with a hint which one could."""
    kind, what = properties["type"], f"memory backend {name}"
    if kind not in _WITH_A_FILE:
        raise refuse(what, f"{kind} has no memory that can be shared", _LEAVE_IT_OUT)
    if not properties["share"]:
        raise refuse(
            what, "it is not shared", f"add share=on to -object {kind},id={name}{OR_ATTACH}"
        )
    if properties.get("readonly"):
        raise refuse(what, "it is read-only", "leave out readonly=on")
    if properties.get("offset"):
        raise refuse(what, "it does not begin where its file does", "leave out offset=")
