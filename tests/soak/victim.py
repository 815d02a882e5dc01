# SPDX-License-Identifier: GPL-2.0-or-later
"""Victim: the soak's side of a host process, which it may kill."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from choices import Chooser, DumpChoice

HOST = Path(__file__).with_name("host.py")
TOP = HOST.parents[2]
PATIENCE_S = 60.0
"""For the answers of a host that hangs."""
GONE_S = 60.0
"""For the kernel to clear away a host that was killed."""


class Hang(Exception):
    """Nothing was heard for too long."""


class Failed(Exception):
    """The host ended by itself, or said that it cannot go on."""


class Victim:
    """A host. One dump at a time."""

    def __init__(self, chooser: Chooser, reference: int, library: Path, deadline_s: float) -> None:
        self.reached = ""
        """Last step of the dump that was answered."""
        self._deadline_s = deadline_s
        self._rest = b""
        inherited = os.environ.get("PYTHONPATH")
        self._process = subprocess.Popen(
            [sys.executable, str(HOST), *chooser.words(), str(reference), str(library)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[reference], bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(TOP), inherited)))},
        )  # fmt: skip

    def dump(self, choice: DumpChoice, path: Path) -> dict[str, Any] | None:
        """What the host found, with its machine held until go(); None: it was killed, as chosen.
        Hang, Failed."""
        self.reached = ""
        self._command(f"dump {choice.index} {path}")
        while True:
            told = self._hear(self._deadline_s)
            if "done" in told:
                return dict(told["done"])
            if choice.end == "kill" and told.get("step") == choice.step:
                time.sleep(choice.after)
                self.kill()
                return None

    def go(self) -> None:
        """Let the machine run on."""
        self._command("go")

    def _command(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())

    def _hear(self, timeout_s: float) -> dict[str, Any]:
        """The next line."""
        assert self._process.stdout
        end = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise Hang(f"nothing after step {self.reached!r} for {timeout_s:g} s")
            data = os.read(self._process.stdout.fileno(), 1 << 20)
            if not data:
                raise Failed(f"the host ended with {self._process.wait(PATIENCE_S)}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        if "failed" in told:
            raise Failed(f"after step {self.reached!r}: {told['failed']}")
        self.reached = told.get("step", self.reached)
        return told

    def status(self) -> Sequence[str]:
        """Of a host that hangs: what it says, and where the kernel has its threads."""
        lines = [f"task {line}" for line in self._tasks()]
        try:
            self._command("status")
            while True:
                told = self._hear(PATIENCE_S)
                if "status" in told:
                    return [*lines, json.dumps(told["status"], indent=1)]
        except (Hang, Failed, OSError) as error:
            return [*lines, f"no status: {error}"]

    def _tasks(self) -> list[str]:
        found = []
        for task in sorted(Path(f"/proc/{self._process.pid}/task").iterdir()):
            words = []
            for name in ("comm", "wchan", "syscall", "stat"):
                try:
                    words.append((task / name).read_text().strip())
                except OSError as error:
                    words.append(str(error.strerror))
            found.append(f"{task.name} {' | '.join(words)}")
        return found

    def kill(self) -> None:
        """SIGKILL; what it had told before counts."""
        self._process.kill()
        try:
            while True:
                self._hear(GONE_S)
        except (Failed, Hang):
            pass
        self.close()

    def close(self) -> None:
        """It has gone afterwards. Harmless when done twice."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate(timeout=GONE_S)

    @property
    def alive(self) -> bool:
        """It can take another dump."""
        return self._process.poll() is None
