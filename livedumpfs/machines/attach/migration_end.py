# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a background snapshot: QEMU and its guest are as they were.

The host does it, or its lifeline, each with its own way to ask QEMU. Standard library alone: for
lifeline_program.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

NAME = "livedump-stream"
"""Of the stream's socket, in QEMU."""
BACKGROUND = "background-snapshot"
UNDER_WAY = frozenset({
    "setup", "active", "device", "cancelling", "wait-unplug", "pre-switchover", "colo",
    "postcopy-active", "postcopy-paused", "postcopy-recover", "postcopy-recover-setup",
})  # fmt: skip
"""Of `query-migrate`."""
ENDED_BADLY = frozenset({"failed", "cancelled"})
PAUSED = "paused"
MIGRATED = "postmigrate"

Ask = Callable[[str, "dict[str, object] | None"], Any]
"""What QEMU returns for a command and its arguments. OSError: it refuses, does not answer, or has
gone."""


@dataclass(frozen=True)
class Former:
    """QEMU's settings of migrations before a snapshot."""

    parameters: Mapping[str, tuple[object, object]]
    """Name -> what the snapshot has set, and what it was before."""
    background: bool
    """The capability was on."""

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Former:
        """What `dataclasses.asdict` and JSON have made of one."""
        pairs = {name: (one[0], one[1]) for name, one in found["parameters"].items()}
        return cls(pairs, bool(found["background"]))


def give_back(ask: Ask, former: Former) -> None:
    """To be called when no migration is under way. What another program has set meanwhile stays.
    OSError: not all of it."""
    found = ask("query-migrate-parameters", None)
    back = {
        name: before
        for name, (ours, before) in former.parameters.items()
        if found.get(name, "") == ours
    }
    if back:
        ask("migrate-set-parameters", back)
    if not former.background:
        ask("migrate-set-capabilities", background(on=False))


def background(*, on: bool) -> dict[str, object]:
    """Arguments of migrate-set-capabilities."""
    return {"capabilities": [{"capability": BACKGROUND, "state": on}]}


def let_run(ask: Ask, *, resumed: bool, ordinary: bool = False) -> None:
    """A guest that our own migration has stopped, and that nothing else will let run. OSError.

    `resumed`: QEMU has let it run after the instant, so what has stopped it since is not ours.
    `ordinary`: our migration has become one in the usual way, and its stream has come here to the
    end: so the guest stands. Without that proof it stays as it is: another program may have
    migrated it away, and it must not run twice.
    """
    if resumed:
        return
    state = ask("query-status", None).get("status")
    # Before the instant is complete a disk that cannot be flushed, or a device that cannot be
    # saved, ends the snapshot, and QEMU leaves the guest paused.
    early = state == PAUSED and ask("query-migrate", None).get("status") in ENDED_BADLY
    if early or (state == MIGRATED and ordinary):
        ask("cont", None)
