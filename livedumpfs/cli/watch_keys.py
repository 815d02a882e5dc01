# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of `watch`: what each does in each state of the dump, and what is asked before. No
I/O."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

from livedumpfs.errors import printable

HELP: Final = "s sweep  r release  a abort  l letters  q quit"
WAY_OUT: Final = "q quit"
_NONE: Final = ("UNDEFINED", "UNINIT")


class Wish(enum.Enum):
    """What is to be done."""

    SWEEP = "swept"
    RELEASE = "released"
    QUIT = "quit"


@dataclass(frozen=True)
class TypedStep:
    """Of the dump that was shown when the key was typed, and of no other."""

    wish: Wish
    dump_id: str = ""
    """In hexadecimal."""


@dataclass
class Dialogue:
    """What was typed so far."""

    question: str = ""
    """It waits for `y`; any other key is a no."""
    notice: str = ""
    """The answer to the last key."""
    lettered: bool = False
    """Letters are wanted on the colours."""
    _step: TypedStep | None = None

    def typed(self, key: str, stats: dict[str, Any]) -> TypedStep | None:
        """A key, while the screen shows `stats`. What is to be done now; None: nothing."""
        asked, self._step, self.question, self.notice = self._step, None, "", ""
        if asked:
            return asked if key in ("y", "Y") else None
        if key == "q":
            return TypedStep(Wish.QUIT)
        if key == "l":
            self.lettered = not self.lettered
        elif key in ("s", "r", "a"):
            return self._of_dump(key, stats)
        return None

    def _of_dump(self, key: str, stats: dict[str, Any]) -> TypedStep | None:
        state, dump_id = str(stats["state"]), str(stats.get("id") or "")
        target = printable(stats.get("target") or "")
        if state in _NONE:
            self.notice = "there is no dump"
        elif key == "s" and state in ("INIT", "START"):  # the host knows of START before the screen
            return TypedStep(Wish.SWEEP, dump_id)
        elif key == "s":
            self.notice = "it is swept already"
        elif state == "FINISH" or (state == "START" and not target):
            self._release(key, target, dump_id)
        elif key == "r":
            how = "s sweeps it, " if state == "START" else ""
            self.notice = f"the dump is not sealed: {how}a breaks it off"
        else:
            self._ask(f"break off the dump? It will be incomplete: {target or 'memory'}", dump_id)
        return None

    def _release(self, key: str, target: str, dump_id: str) -> None:
        """Of a dump that nothing would be added to."""
        if key == "a":
            self.notice = "nothing to break off: r releases it"
        elif target:
            self._ask(f"release the dump? It stays on {target}", dump_id)
        else:
            self._ask("release the snapshot? It is in memory alone, and is gone then", dump_id)

    def _ask(self, question: str, dump_id: str) -> None:
        self.question = f"[y/n] {question}"
        self._step = TypedStep(Wish.RELEASE, dump_id)
