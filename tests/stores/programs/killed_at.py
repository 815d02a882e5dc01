# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a livedump command and kills its process before its n-th step that changes a file:
killed_at.py N WORDS...; a command that ends before that prints how many steps it took."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from livedumpfs.cli.main import main
from livedumpfs.stores import file_calls
from livedumpfs.stores.folder_objects import FolderObjects

STEPS = (
    (os, "unlink"), (os, "rename"), (os, "fsync"), (os, "makedirs"), (os, "mkdir"),
    (file_calls, "renameat2"), (FolderObjects, "sync"),
)  # fmt: skip


def counted(real: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    """The same function, which is the end when none is left."""

    def step(*arguments: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **more)

    return step


if __name__ == "__main__":
    begun = int(sys.argv[1])
    left = [begun]
    for owner, name in STEPS:
        setattr(owner, name, counted(getattr(owner, name), left))
    code = main(sys.argv[2:])
    print("steps", begun - left[0], file=sys.stderr)
    raise SystemExit(code)
