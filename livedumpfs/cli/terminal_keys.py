# SPDX-License-Identifier: GPL-2.0-or-later
"""Single keys from a terminal, without echo and without Enter."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import tty
from types import TracebackType
from typing import Self

CLOSED = "\0closed"
"""In place of a key: the terminal has gone."""
_CONTROL_CHARACTERS = 6
"""Their place in what tcgetattr gives."""
_OFF = b"\0"
_MOST = 64


class TerminalKeys:
    """A context manager; at its end the terminal is as it was. Ctrl-C stays a signal. Ctrl-Z does
    not stop the command: its picture would stay on the screen of the shell."""

    def __init__(self, number: int) -> None:
        """Of the terminal at that descriptor."""
        self._number = number
        self._was: list[object] = []

    def __enter__(self) -> Self:
        self._was = termios.tcgetattr(self._number)
        tty.setcbreak(self._number)
        now = termios.tcgetattr(self._number)
        now[_CONTROL_CHARACTERS][termios.VSUSP] = _OFF
        termios.tcsetattr(self._number, termios.TCSANOW, now)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(termios.error):  # it has gone
            termios.tcsetattr(self._number, termios.TCSADRAIN, self._was)  # type: ignore[arg-type]

    def read(self, seconds: float) -> list[str]:
        """The keys that were typed, waiting that long for the first; []: none. What a function key
        or a paste sends is one string of several characters."""
        ready, _, _ = select.select([self._number], [], [], seconds)
        if not ready:
            return []
        try:
            found = os.read(self._number, _MOST)
        except OSError:
            found = b""
        if not found:
            return [CLOSED]
        text = found.decode(errors="replace")
        return [text] if text.startswith("\x1b") else list(text)
