# SPDX-License-Identifier: GPL-2.0-or-later
"""QmpCommands: what is asked of a QEMU by whichever way its monitor is reached."""

from __future__ import annotations

import contextlib
import errno
from abc import ABC, abstractmethod

from livedumpfs.errors import MachineError


class QmpCommands(ABC):
    """Each call ends within its timeout, in seconds, else MachineError, which names the command.
    Timeout None: the way's own limit."""

    @abstractmethod
    def execute(
        self,
        command: str,
        arguments: dict[str, object] | None = None,
        *,
        timeout: float | None = None,
    ) -> object:
        """QEMU's answer. MachineError: ETIMEDOUT, ECONNRESET, or EINVAL with QEMU's own words.
        After ETIMEDOUT QEMU may still carry out the command."""

    def hmp(self, line: str, *, timeout: float | None = None) -> str:
        """The human monitor's output for a line; its own errors are part of that text. MachineError
        as in `execute`."""
        arguments: dict[str, object] = {"command-line": line}
        text = self.execute("human-monitor-command", arguments, timeout=timeout)
        return str(text).replace("\r\n", "\n")

    def status(self, *, timeout: float | None = None) -> str:
        """The run state, e.g. "running" or "paused". MachineError as in `execute`."""
        return run_state(self.execute("query-status", timeout=timeout))

    def has_kvm(self) -> bool:
        """Whether KVM runs the guest's code; the command line may allow either (`kvm:tcg`).
        MachineError as in `execute`."""
        found = self.execute("query-kvm")
        return isinstance(found, dict) and found.get("enabled") is True

    def identity(self) -> str:
        """Name and UUID of the guest, as far as it has them (-name, -uuid); "": neither, or QEMU
        does not say."""
        found = []
        for command, key in (("query-name", "name"), ("query-uuid", "UUID")):
            with contextlib.suppress(MachineError):
                answer = self.execute(command)
                said = answer.get(key) if isinstance(answer, dict) else None
                if isinstance(said, str) and said.strip("0-"):
                    found.append(said)
        return " ".join(found)


def run_state(answer: object) -> str:
    """Of an answer to `query-status`. MachineError EPROTO."""
    state = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(state, str):
        raise MachineError("QEMU answers 'query-status' with no state", errno=errno.EPROTO)
    return state
