# SPDX-License-Identifier: GPL-2.0-or-later
"""MigrationSettings: what a background snapshot needs of QEMU's settings of migrations, and what
they were before."""

from __future__ import annotations

import errno
from typing import Any, Final

from livedumpfs.errors import MachineError
from livedumpfs.machines.attach.migration_end import (
    BACKGROUND,
    Ask,
    Former,
    background,
    give_back,
)
from livedumpfs.machines.attach.obstacles import capabilities_of
from livedumpfs.machines.qemu.qmp_commands import QmpCommands

_FAST: Final = (1 << 40) + 0x6C64
"""Bytes a second: no limit. The last digits tell that it is ours: a host whose lifeline was killed
with it leaves it behind."""
_USUAL: Final = 128 << 20
"""QEMU's default."""
_BANDWIDTH: Final = "max-bandwidth"
_IN_PROGRESS: Final = "migration process in progress"
_TLS: Final = "tls-creds"


class MigrationSettings:
    """Of one QEMU, as they are when this is made."""

    def __init__(self, monitor: QmpCommands) -> None:
        """MachineError."""
        self._monitor = monitor
        found = monitor.execute("query-migrate-parameters")
        assert isinstance(found, dict)
        on = bool(capabilities_of(monitor).get(BACKGROUND))
        bandwidth = found.get(_BANDWIDTH, _USUAL)
        left = on and bandwidth == _FAST
        parameters: dict[str, tuple[object, object]] = {
            _BANDWIDTH: (_FAST, _USUAL if left else bandwidth)
        }
        if found.get(_TLS):  # else QEMU would speak TLS with us
            parameters[_TLS] = ("", found[_TLS])
        self.former = Former(parameters, on and not left)
        self._touched = False

    def change(self) -> None:
        """For a snapshot. MachineError ENOTSUP: this guest cannot have one."""
        self._touched = True  # after ETIMEDOUT QEMU may still do it
        try:
            self._monitor.execute("migrate-set-capabilities", background(on=True))
        except MachineError as error:
            if error.errno != errno.EINVAL:
                raise
            self._touched = False
            if _IN_PROGRESS in error.message:
                raise MachineError(
                    "a migration of the guest has just begun",
                    errno=errno.EBUSY,
                    hint="wait for it",
                ) from error
            raise MachineError(
                f"QEMU cannot write-protect the memory of this guest: {_words(error)}",
                errno=errno.ENOTSUP,
                hint="it needs userfaultfd (root, or vm.unprivileged_userfaultfd=1), for shared "
                "memory Linux 5.19, on arm64 6.10",
            ) from error
        changed = {name: ours for name, (ours, _) in self.former.parameters.items()}
        self._monitor.execute("migrate-set-parameters", changed)

    def give_back(self) -> bool:
        """After a snapshot. False: not all of them; QEMU may have ended, or does not answer."""
        if self._touched:
            try:
                give_back(asker(self._monitor), self.former)
            except OSError:
                return False
            self._touched = False
        return True


def asker(monitor: QmpCommands) -> Ask:
    """How the functions of migration_end.py ask QEMU."""

    def ask(command: str, arguments: dict[str, object] | None) -> Any:
        try:
            return monitor.execute(command, arguments)
        except MachineError as error:
            raise OSError(error.errno or errno.EIO, error.message) from error

    return ask


def _words(error: MachineError) -> str:
    """QEMU's own, without ours before them."""
    return error.message.partition(": ")[2] or error.message
