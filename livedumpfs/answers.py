# SPDX-License-Identifier: GPL-2.0-or-later
"""What a step by dump id says, and what a host answers. This module is a leaf."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Self

from livedumpfs import abi
from livedumpfs.abi import AnswerFlag
from livedumpfs.errors import UsageError


@dataclass(frozen=True)
class Instant:
    """Times in ns, 0: not yet. `wall` is CLOCK_REALTIME since the epoch, `mono` CLOCK_MONOTONIC."""

    dump_id: bytes
    """16 bytes."""
    already: bool
    """The step was taken by an earlier call."""
    pending: bool
    """START is to come."""
    at_ns: int
    """The time that START was asked for; 0: at once."""
    instant_mono_ns: int
    instant_wall_ns: int
    pause_ns: int
    """From the request to stop until all run again."""
    stood_mono_ns: int
    """HOLD: the machine stands from here, ..."""
    stood_wall_ns: int
    ran_mono_ns: int
    """... and runs again from here."""
    ran_wall_ns: int

    @classmethod
    def of(cls, found: abi.StepRequest) -> Self:
        """Of what a host has filled in."""
        return cls(
            bytes(found.dump_id),
            bool(found.answer & AnswerFlag.ALREADY),
            bool(found.answer & AnswerFlag.PENDING),
            found.at_ns,
            *(getattr(found, name) for name in abi.INSTANT_TIMES),
        )

    @property
    def error_ns(self) -> int:
        """How much later than asked for the instant was; below 0: earlier."""
        return self.instant_wall_ns - self.at_ns if self.at_ns and self.instant_wall_ns else 0


def put_id(request: abi.InitId | abi.StepRequest | abi.StatusId, dump_id: bytes | None) -> None:
    """Write the dump id into the struct; None: zeros. UsageError EINVAL: not 16 bytes."""
    found = dump_id or bytes(abi.ID_SIZE)
    if len(found) != abi.ID_SIZE:
        raise UsageError(f"a dump id of {len(found)} bytes, not {abi.ID_SIZE}", errno=errno.EINVAL)
    request.dump_id[:] = list(found)
