# SPDX-License-Identifier: GPL-2.0-or-later
"""Reasons why a QEMU that runs cannot take a background snapshot now. Nothing here changes it."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import msgspec

from livedumpfs.errors import MachineError
from livedumpfs.machines.attach.migration_end import BACKGROUND, UNDER_WAY
from livedumpfs.machines.qemu.now import check_files, writers
from livedumpfs.machines.qemu.qmp_commands import QmpCommands

_HARMLESS: Final = frozenset({BACKGROUND, "events"})
"""Capabilities with which the stream is what is known here."""
_ALLOWED: Final = frozenset({"running", "paused"})
"""Run states from which QEMU can come into that of a background snapshot, and back. From some
others (guest-panicked, prelaunch) its process would end by abort()."""
_OLDEST: Final = (6, 0)
_KNOWS_SPARSE: Final = (6, 2)
_SPARSE: Final = "virtio-mem"
_ADVICE: Final = "livedump qemu -- ... starts a guest that can be dumped without it"

_Number = Annotated[int, msgspec.Meta(ge=0)]
_Kind = TypeVar("_Kind")


class _Version(msgspec.Struct):
    major: _Number
    minor: _Number
    micro: _Number


class _Named(msgspec.Struct):
    qemu: _Version


class _Capability(msgspec.Struct):
    capability: str
    state: bool


class MigrationState(msgspec.Struct, rename="kebab"):
    """What `query-migrate` says."""

    status: str = "none"
    downtime: _Number = 0
    """Milliseconds of the last stop."""
    error_desc: str = ""
    blocked_reasons: list[str] = []


@dataclass(frozen=True)
class QemuVersion:
    """Of the QEMU that runs."""

    major: int
    minor: int
    micro: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.micro}"

    def before(self, version: tuple[int, int]) -> bool:
        """Older than that one."""
        return (self.major, self.minor) < version


def answer(monitor: QmpCommands, command: str, kind: type[_Kind]) -> _Kind:
    """QEMU's answer as that type. MachineError: EPROTO, it is something else."""
    found = monitor.execute(command)
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise MachineError(
            f"QEMU answers {command!r} in a way that is not known here: {error}",
            errno=errno.EPROTO,
        ) from error


def version_of(monitor: QmpCommands) -> QemuVersion:
    """MachineError."""
    found = answer(monitor, "query-version", _Named).qemu
    return QemuVersion(found.major, found.minor, found.micro)


def migration_of(monitor: QmpCommands) -> MigrationState:
    """MachineError."""
    return answer(monitor, "query-migrate", MigrationState)


def capabilities_of(monitor: QmpCommands) -> Mapping[str, bool]:
    """Name -> whether it is on. MachineError."""
    found = answer(monitor, "query-migrate-capabilities", list[_Capability])
    return {one.capability: one.state for one in found}


def check_kind(monitor: QmpCommands) -> QemuVersion:
    """What does not change while it runs. MachineError ENOTSUP."""
    version = version_of(monitor)
    if version.before(_OLDEST):
        raise _never(f"QEMU {version} has no background snapshot, 6.0 and newer have it", "")
    if BACKGROUND not in capabilities_of(monitor):
        raise _never(f"this QEMU ({version}) has no background snapshot", _ADVICE)
    return version


def check_attachable(monitor: QmpCommands, version: QemuVersion, pid: int = 0) -> None:
    """What may change. MachineError: EBUSY, not now; ENOTSUP, not with this guest."""
    for found in obstacles(monitor, version, pid):
        raise found


def obstacles(monitor: QmpCommands, version: QemuVersion, pid: int = 0) -> Iterator[MachineError]:
    """All that check_attachable raises. `pid`: of QEMU; 0: it is not known, nor what QEMU has
    open."""
    migration = migration_of(monitor)
    if migration.status in UNDER_WAY:
        yield MachineError(
            f"a migration of the guest is under way ({migration.status})",
            errno=errno.EBUSY,
            hint="wait for it",
        )
    for reason in migration.blocked_reasons:
        yield _never(f"QEMU cannot copy the state of this guest: {reason}", "unplug what it names")
    yield from _wrong_state(monitor.status(), migration)
    for name, on in capabilities_of(monitor).items():
        if on and name not in _HARMLESS:
            yield MachineError(
                f"QEMU's migration capability {name} is on, which does not go with a background "
                "snapshot",
                errno=errno.EBUSY,
                hint=f"turn it off: migrate_set_capability {name} off",
            )
    # The kernel's vhost stores through QEMU's page tables, where userfaultfd sees it, and stands
    # still with the guest.
    yield from writers(monitor, kernel=False)
    if pid:
        yield from _open_devices(pid)
    if version.before(_KNOWS_SPARSE) and _SPARSE in memory_devices(monitor).values():
        yield _never(f"QEMU {version} cannot copy {_SPARSE} in the background, 6.2 can", "")


def _wrong_state(state: str, migration: MigrationState) -> Iterator[MachineError]:
    if state not in _ALLOWED and migration.status not in UNDER_WAY:
        yield MachineError(
            f"the guest is neither running nor paused ({state}), and QEMU does not survive a "
            "background snapshot of it",
            errno=errno.EBUSY,
            hint="`dump-guest-memory` can dump a guest that stands still",
        )


def _open_devices(pid: int) -> Iterator[MachineError]:
    try:
        check_files(pid, kernel=False)
    except MachineError as error:
        if error.errno == errno.ENOTSUP:  # else that cannot be seen by this process
            yield error


def memory_devices(monitor: QmpCommands) -> dict[str, str]:
    """Id of the memory backend -> kind of the device that brings it into the guest (dimm,
    virtio-mem). MachineError."""
    found: Any = answer(monitor, "query-memory-devices", list[dict[str, Any]])
    return {
        str(one.get("data", {}).get("memdev", "")).removeprefix("/objects/"): str(one.get("type"))
        for one in found
    }


def _never(why: str, hint: str) -> MachineError:
    return MachineError(why, errno=errno.ENOTSUP, hint=hint)
