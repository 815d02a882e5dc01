# SPDX-License-Identifier: GPL-2.0-or-later
"""Python imports this in a host that is started with this folder in PYTHONPATH: a thread of it
forks and execs all the time, and writes a line to LIVEDUMP_FORKS for each time."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

CHILD_S = 300.0


def expect_end(pid: int) -> None:
    """A child that hangs is told in the host's log, and ended."""
    end = time.monotonic() + CHILD_S
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            print("a child hangs", flush=True)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.001)


def work(log: int) -> None:
    while True:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        expect_end(pid)
        subprocess.run(["true"], check=True, timeout=CHILD_S)
        os.write(log, b"forked\n")


if place := os.environ.pop("LIVEDUMP_FORKS", ""):
    out = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    threading.Thread(target=work, args=(out,), daemon=True).start()
