# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends a child process and all its descendants."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_EACH_S: Final = 1.0


def kill_family(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM to each process, then SIGKILL. They share this process's group, so a signal to the
    group would end this process, too."""
    with contextlib.ExitStack() as opened:
        fds = [fd for pid in _family(child.pid) if (fd := _open(pid, opened)) >= 0]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for fd in fds:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, number)
            until = time.monotonic() + _EACH_S
            fds = [fd for fd in fds if not _ended(fd, until)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_EACH_S)


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for word in task.read_text().split():
                yield from _family(int(word))


def _open(pid: int, opened: contextlib.ExitStack) -> int:
    try:
        fd = os.pidfd_open(pid)
    except OSError:  # it has ended
        return -1
    opened.callback(os.close, fd)
    return fd


def _ended(pidfd: int, until: float) -> bool:
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(max(0, int((until - time.monotonic()) * 1000))))
