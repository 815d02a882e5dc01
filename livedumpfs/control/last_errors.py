# SPDX-License-Identifier: GPL-2.0-or-later
"""LastErrors: the sentences behind the errnos that callers got, for control/error."""

from __future__ import annotations

import errno
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from livedumpfs.control.caller import Caller
from livedumpfs.errors import LivedumpError, in_control, printable

_KEPT: Final = 64
"""Tasks whose last error is remembered: those that failed last."""


class LastErrors:
    """The last error of each task. Any thread may call anything."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[int, str]] = OrderedDict()
        """By the number of the task: (its user, the sentence), the newest at the end."""
        self._lock = threading.Lock()

    @contextmanager
    def recording(self, caller: Caller, *, keep: bool = True) -> Iterator[None]:
        """Around what a caller asked for: an exception leaves as an OSError with an errno, and its
        sentence is kept. `keep`: False for what the caller did not ask for itself."""
        try:
            yield
        except Exception as error:
            said = error.worded(in_control) if isinstance(error, LivedumpError) else str(error)
            if keep:
                self._keep(caller, said)
            if isinstance(error, OSError) and error.errno:
                raise
            raise OSError(_errno_of(error), said) from error

    def _keep(self, caller: Caller, sentence: str) -> None:
        with self._lock:
            self._kept.pop(caller.tid, None)
            self._kept[caller.tid] = caller.uid, printable(" ".join(sentence.split()))
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def of(self, caller: Caller, *, everybodys: bool) -> str:
        """One line: the caller's own last error, else the last of its user, or, if `everybodys`,
        of any user; "": there is none."""
        with self._lock:
            seen = {
                tid: sentence
                for tid, (uid, sentence) in self._kept.items()
                if everybodys or uid == caller.uid
            }
        last = next(reversed(seen.values()), None)
        return "" if last is None else seen.get(caller.tid, last) + "\n"


def _errno_of(error: Exception) -> int:
    if isinstance(error, LivedumpError) and error.errno:
        return error.errno
    return errno.EINVAL if isinstance(error, ValueError) else errno.EIO
