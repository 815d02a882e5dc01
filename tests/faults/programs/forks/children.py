# SPDX-License-Identifier: GPL-2.0-or-later
"""Children by fork, how they end, and the steps of a dump that they are refused."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable

from livedumpfs.errors import LivedumpError

DEADLINE_S = 60


def child(body: Callable[[], int | None]) -> int:
    """How a child that runs `body` ends: its exit code, or minus the signal."""
    pid = os.fork()
    if pid == 0:
        try:
            code = body()
        except SystemExit:
            raise
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            code = 99
        os._exit(code or 0)
    return wait(pid)


def wait(pid: int) -> int:
    end = time.monotonic() + DEADLINE_S
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])


def refused(step: Callable[[], object]) -> bool:
    try:
        step()
    except LivedumpError as error:
        return error.errno == errno.ECHILD
    return False
