# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program finds when it begins, as JSON in the file of its first argument; then it does what
the second says."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
from pathlib import Path


def stream(one) -> list[object]:
    return [
        one.name, one.mode, one.encoding, one.errors, one.line_buffering, one.write_through,
        one.fileno(), one.isatty(), one.newlines, one.closed, type(one.buffer).__name__,
    ]  # fmt: skip


def handler(number: int) -> str:
    return repr(getattr(signal.getsignal(number), "__name__", signal.getsignal(number)))


OURS = sorted(
    int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
)
STATUS = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
found = {
    "argv": sys.argv,
    "path": sys.path,
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "fds": OURS,
    "files": [os.readlink(f"/proc/self/fd/{number}") for number in OURS[:2]],
    "streams": [stream(sys.stdin), stream(sys.stdout), stream(sys.stderr)],
    "same streams": [sys.stdin is sys.__stdin__, sys.stdout is sys.__stdout__],
    "handlers": {number.name: handler(number) for number in signal.valid_signals() - {0}
                 if isinstance(number, signal.Signals)},
    "masks": [STATUS[name] for name in ("SigBlk", "SigIgn", "SigCgt")],
    "session of its own": os.getsid(0) == os.getpid(),
    "group of its own": os.getpgid(0) == os.getpid(),
    "threads": [len(os.listdir("/proc/self/task")), threading.active_count(),
                threading.current_thread().name],
    "main": [__name__, sys.modules["__main__"].__dict__ is globals()],
    "flags": repr(sys.flags),
    "warnings": sys.warnoptions,
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "alone": threading.main_thread().native_id == os.getpid(),
}  # fmt: skip
Path(sys.argv[1]).write_text(json.dumps(found))
match sys.argv[2]:
    case "says":
        print("out", sys.stdin.readline().strip())
        print("err", file=sys.stderr)
    case "exits":
        sys.exit(int(sys.argv[3]))
    case "complains":
        sys.exit("a sentence")
    case "raises":
        raise ValueError("a bug")
    case "waits":
        print("waits", flush=True)
        signal.pause()
    case "dies":
        os.kill(os.getpid(), signal.SIGKILL)
