# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of `livedump attach` for the time of one command."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from livedumpfs.cli.outcome import Exit, note
from livedumpfs.errors import HostError, os_cause

_DEVICE: Final = "device "
_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG."""
_END_S: Final = 60.0


@contextlib.contextmanager
def attached_host(guest: Sequence[str]) -> Iterator[str]:
    """Its livedump file; the host ends with the block, and when this process is killed. `guest`:
    the words of `attach` for it. SystemExit: it could not attach, and has said why. HostError."""
    words = [sys.executable, "-P", "-m", "livedumpfs.cli", "attach", *guest]
    libc, parent = ctypes.CDLL(None), os.getpid()

    def die_with_us() -> None:
        libc.prctl(_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(Exit.FAILED)

    try:
        host = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=die_with_us,
        )  # fmt: skip
    except OSError as error:
        code = error.errno or 0
        raise HostError(f"cannot start a host: {os_cause(code)}", errno=code) from error
    assert host.stdout
    try:
        yield _device_of(host)
    finally:
        host.terminate()
        try:
            host.wait(_END_S)
        except subprocess.TimeoutExpired:
            note(f"the host (pid {host.pid}) has not ended yet")
        host.stdout.close()


def _device_of(host: subprocess.Popen[str]) -> str:
    assert host.stdout
    for line in host.stdout:
        if line.startswith(_DEVICE):
            return line.removeprefix(_DEVICE).removesuffix("\n")
    raise SystemExit(host.wait() or Exit.FAILED)
