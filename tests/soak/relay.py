# SPDX-License-Identifier: GPL-2.0-or-later
"""Relay: a slow reader at the other end of a pipe, which keeps what came in a file."""

from __future__ import annotations

import fcntl
import os
import random
import select
import threading
import time
from pathlib import Path

PIECE = 1 << 20
PAUSE_S = 0.01
"""After each MiB or so, in the middle."""


class Relay:
    """Reads from the first moment on, until the writer has closed the pipe."""

    def __init__(self, fifo: Path, stream: Path, seed: int) -> None:
        os.mkfifo(fifo)
        self._fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIECE)
        self._stream = stream
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with open(self._stream, "wb") as file:
            while True:
                over = self._over.is_set()
                if select.select([self._fd], [], [], 0.05)[0]:
                    data = os.read(self._fd, PIECE)
                    file.write(data)
                    # Nothing comes before a writer has opened the pipe, too.
                    if not data and over:
                        return
                time.sleep(self._random.uniform(0, 2 * PAUSE_S))

    def close(self, deadline_s: float) -> None:
        """The dump is over: take the rest."""
        self._over.set()
        self._thread.join(deadline_s)
        assert not self._thread.is_alive(), "the pipe is still open after its dump"
        os.close(self._fd)
