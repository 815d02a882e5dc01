# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole livedump commands for tests, as a shell would start them, beside one host."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.abi import State
from livedumpfs.cli import main as cli
from livedumpfs.client import Client
from tests.fixtures.forks import start
from tests.fixtures.program_files import program_file

LIVEDUMP = [sys.executable, "-P", "-m", "livedumpfs.cli"]
DEADLINE_S = 300.0
SLOW = ("--sweep-rate", "1K")
"""A dump that goes on until the test has done what it wanted."""


def wait_for(condition: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    end = time.monotonic() + DEADLINE_S
    pause_s = 0.01
    while not condition():
        assert time.monotonic() < end, f"still not so after {DEADLINE_S:g} s: {told()}"
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, 0.1)  # what is asked is work, too


needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="the mount needs /dev/fuse"
)


def end(line: str) -> int:
    """The exit code of a command."""
    try:
        return int(cli.main(line.split()))
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        return ended.code


def one_sentence(err: str) -> str:
    """The one that says why."""
    said = [line for line in err.splitlines() if line.startswith("livedump: error: ")]
    assert len(said) == 1, err
    return said[0]


def text(printed: bytes | None) -> str:
    """Of whatever encoding."""
    return (printed or b"").decode(errors="surrogateescape")


class Commands:
    """A folder with a runtime directory of its own, and a host if one is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(folder),
            "LIVEDUMPFS_STATE": str(folder / "state"),
        }
        self.env.pop("LIVEDUMP_DEVICE", None)
        self.begun: list[subprocess.Popen[bytes]] = []

    def begin(
        self, *words: object, redirect: str = "", program: Sequence[str] = LIVEDUMP, **more: Any
    ) -> subprocess.Popen[bytes]:
        """Start a command; `redirect` is shell text, such as ">&-"."""
        argv = [*program, *map(str, words)]
        if redirect:
            argv = ["sh", "-c", f'exec "$@" {redirect}', "sh", *argv]
        more = {
            "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
            "cwd": self.folder, "env": {**self.env, **more.pop("env", {})}, **more,
        }  # fmt: skip
        self.begun.append(start(argv, **more))
        return self.begun[-1]

    def run(self, *words: object, **more: Any) -> tuple[int, str, str]:
        """A command to its end: exit code and what it printed."""
        return self.end(self.begin(*words, **more))

    def run_all(self, *lines: str, **more: Any) -> tuple[dict[str, int], str, str]:
        """Several commands in one process, which takes one start: exit codes, what was printed."""
        codes = self.folder / "codes"
        process = self.begin(
            codes,
            *lines,
            program=[sys.executable, "-P", str(program_file(__file__, "several_commands.py"))],
            **more,
        )
        ended, out, err = self.end(process)
        assert ended == 0, f"its end fails: {err}"
        return dict(zip(lines, json.loads(codes.read_text()), strict=True)), out, err

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
        """Wait for it: exit code and what it printed."""
        out, err = process.communicate(timeout=DEADLINE_S)
        assert b"Traceback" not in (err or b""), err.decode()
        return process.returncode, text(out), text(err)

    def host(self, *words: str) -> subprocess.Popen[bytes]:
        """A host that serves `folder`/mount."""
        mount = self.folder / "mount"
        mount.mkdir(exist_ok=True)
        log = self.folder / "host.log"
        with open(log, "wb") as file:
            process = self.begin("host", "--mount", mount, *words, stdout=file, stderr=file)
        wait_for(
            lambda: b"\ndevice " in log.read_bytes() or process.poll() is not None, log.read_text
        )
        assert process.poll() is None, log.read_text()
        self.device = self.env["LIVEDUMP_DEVICE"] = str(mount / "livedump")
        return process

    def state(self) -> State:
        with Client(self.device) as client:
            return client.status().state

    def reached(self, state: State) -> None:
        """Wait until the host's dump is there."""
        wait_for(lambda: self.state() is state, self.state)

    def release(self) -> None:
        """As another program would."""
        with Client(self.device) as client:
            client.release()

    def close(self) -> None:
        """End what still runs, the host last."""
        for process in reversed(self.begun):
            if process.poll() is None:
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DEADLINE_S)
        stuck = [process.args for process in self.begun if process.poll() is None]
        for process in self.begun:
            if process.poll() is None:
                process.kill()
                process.wait(DEADLINE_S)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        assert not stuck, f"did not end on SIGTERM: {stuck}"


@contextlib.contextmanager
def commands(folder: Path) -> Iterator[Commands]:
    """Commands in `folder`; nothing of them is left."""
    some = Commands(folder)
    try:
        yield some
    finally:
        some.close()
