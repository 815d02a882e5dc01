# SPDX-License-Identifier: GPL-2.0-or-later
"""A released dump whose I/O hung is freed once, by one of the threads that look for that: the one
that waits for it, and the next RELEASE or INIT."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from livedumpfs import Arena
from livedumpfs.dump import DumpSettings
from livedumpfs.dump.run import DumpRun
from livedumpfs.machines import machine_for

DEADLINE_S = 300.0


class SlowFiles:
    """As DumpFiles, whose end takes until `go`."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.ends = 0
        self.target = SimpleNamespace(path="target")
        self.plan = SimpleNamespace(dump_id=bytes(16))

    def discard(self) -> None:
        self.ends += 1
        self.entered.set()
        assert self.go.wait(DEADLINE_S)


def test_files_are_given_up_once_and_no_thread_waits_for_another() -> None:
    files: Any = SlowFiles()
    with Arena(1 << 20) as arena:
        run = DumpRun(machine_for(arena, None, None), DumpSettings(), files)
        answers: list[bool] = []
        slow = threading.Thread(target=lambda: answers.append(run.let_go()))
        slow.start()
        assert files.entered.wait(DEADLINE_S)
        assert not run.let_go(), "another thread is at it"
        files.go.set()
        slow.join(DEADLINE_S)
        assert answers == [True]
        assert run.let_go() and files.ends == 1, "it is freed already"
