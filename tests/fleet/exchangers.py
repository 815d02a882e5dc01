# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts in processes of their own, whose machines pay each other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from livedumpfs.abi import State
from livedumpfs.client import Client
from livedumpfs.closing import Closing
from livedumpfs.proc import proc_text
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.program_files import program_file

DEADLINE_S = 120.0
IDLE = (State.UNDEFINED, State.UNINIT)


class Exchangers(Closing):
    """All of them; they end with the block."""

    def __init__(self, folder: Path, count: int, rate: float, group: int | None) -> None:
        self.folder = folder
        self.mounts = [folder / f"vm{i}" for i in range(count)]
        self.logs = [folder / f"vm{i}.log" for i in range(count)]
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
        program = str(program_file(__file__, "exchanger.py"))
        self.processes: list[subprocess.Popen[bytes]] = []
        for i, mount in enumerate(self.mounts):
            mount.mkdir()
            words = [str(i), str(count), str(mount), str(folder), str(rate), str(group or "")]
            with open(self.logs[i], "w") as log:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, program, *words],
                        env=environment, stdout=log, stderr=subprocess.STDOUT,
                    )
                )  # fmt: skip
        try:
            for i, process in enumerate(self.processes):
                wait_until(lambda i=i: "ready" in self.logs[i].read_text(), self.said)
                assert process.poll() is None, self.said()
        except BaseException:
            self.close()
            raise

    def said(self) -> str:
        return "\n".join(log.read_text() for log in self.logs)

    def kill(self, index: int) -> None:
        """As the kernel would."""
        self.processes[index].kill()
        self.processes[index].wait(DEADLINE_S)

    def is_idle(self, index: int) -> bool:
        """It has no dump: nothing is held or armed."""
        with Client(str(self.mounts[index])) as client:
            held = client.stats()["held"]
            return client.status().state in IDLE and not (held and held["now"])

    def runs_on(self, *indexes: int) -> None:
        """They have no dump any more, and their memory changes."""
        for index in indexes or range(len(self.mounts)):
            wait_until(lambda index=index: self.is_idle(index), self.said)
            before = self._memory(index)
            wait_until(lambda i=index, b=before: self._memory(i) != b, self.said)

    def _memory(self, index: int) -> bytes:
        """Where it counts its turns."""
        with open(self.mounts[index] / "mem", "rb") as file:
            return file.read(PAGE_SIZE)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process, mount in zip(self.processes, self.mounts, strict=False):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DEADLINE_S)
            if process.poll() is None:
                process.kill()
                process.wait(DEADLINE_S)
            if f" {mount} " in proc_text("/proc/self/mountinfo"):
                subprocess.run(["fusermount", "-u", "-z", str(mount)], timeout=60, check=True)


def wait_until(there: object, said: object) -> None:
    """Until there() is true; said() tells what is known when it is not in time."""
    deadline = time.monotonic() + DEADLINE_S
    while not there():  # type: ignore[operator]
        assert time.monotonic() < deadline, said()  # type: ignore[operator]
        time.sleep(0.02)
