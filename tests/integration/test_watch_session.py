# SPDX-License-Identifier: GPL-2.0-or-later
"""A session of `livedump watch` in a pseudo-terminal, beside a real host and its dumps."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.client import Client
from livedumpfs.dumpfile import open_dump
from livedumpfs.page_map import LETTERS
from tests.fixtures import forks
from tests.fixtures.shells import DEADLINE, LIVEDUMP, Shell, wait_for

ROWS, COLUMNS = 24, 80
LEAVES_SCREEN = "\x1b[?1049l"


class Session:
    """`watch` on a terminal of its own."""

    def __init__(self, shell: Shell, *words: str, **variables: str) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(ROWS, COLUMNS)
        self.before = termios.tcgetattr(self.ours)
        self.process = forks.start(
            [LIVEDUMP, "watch", *words],
            env={**shell.env, "TERM": "xterm", "LC_ALL": "C.UTF-8", "NO_COLOR": "1", **variables},
            cwd=shell.folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            text=True,
        )  # fmt: skip
        shell.processes.append(self.process)
        os.close(theirs)
        self.shown = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def until(self, pattern: str) -> str:
        """Read until the terminal was sent that; from now on what was sent before is forgotten."""
        end = time.monotonic() + DEADLINE
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < end, f"no {pattern!r}: {self.shown[-4000:]}"
            if select.select([self.ours], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.ours, 1 << 16).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"it ended: {self.shown[-4000:]}") from None
        self.shown = self.shown[found.end() :]
        return found[0]

    def ends(self) -> int:
        """Its exit code. What it still sends is read, or it could not end."""
        with contextlib.suppress(OSError):
            while piece := os.read(self.ours, 1 << 16):
                self.shown += piece.decode(errors="replace")
        return self.process.wait(DEADLINE)


@pytest.fixture
def watched(shell: Shell) -> Iterator[tuple[Shell, str]]:
    """A host, and its device."""
    yield shell, shell.host("--ram", "16M", "--vcpus", "1", "--idle")[1]


def test_a_dump_from_its_start_to_its_release_by_keys(watched: tuple[Shell, str]) -> None:
    shell, device = watched
    session = Session(shell, "--every", "0.1")
    session.until("no dump yet")
    shell.run("init", "d.elf")
    session.until(r"INIT[^\n]*\n.*-{60}")
    shell.run("start")
    session.until("consistent so far")
    session.type("r")
    session.until("s sweeps it, a breaks it off")
    session.type("s")
    session.until("FINISH")
    session.until("S{8}")
    session.type("r")
    session.until(r"\[y/n\] release the dump\? It stays on /")
    session.type("n")
    session.until("q quit")
    with Client(device) as client:
        assert client.status().state.name == "FINISH"
        letters = client.pages().decode()
        assert set(letters) <= set("S0FT") and len(letters) == client.status().counters["granules"]
    session.type("r")
    session.until(r"\[y/n\]")
    session.type("y")
    session.until("released; the machine runs at full speed")
    session.resize(5, 20)
    session.until("UNINIT|q quit|S{8}")
    session.type("q")
    assert session.ends() == 0
    assert LEAVES_SCREEN in session.shown
    with open_dump(shell.folder / "d.elf") as dump:
        assert dump.verdict == "consistent"


def test_a_dump_that_is_broken_off(watched: tuple[Shell, str]) -> None:
    shell, device = watched
    dump = shell.begin("dump", "e.elf", "--sweep-rate", "64K", "--granule", "4K")
    session = Session(shell, device)
    session.until("SWEEP")
    session.type("a")
    session.until(r"\[y/n\] break off the dump\? It will be incomplete")
    session.type("y")
    session.until("incomplete")
    dump.communicate(timeout=DEADLINE)
    assert dump.returncode != 0
    session.process.send_signal(signal.SIGINT)
    assert session.ends() == 130
    assert LEAVES_SCREEN in session.shown and "interrupted" in session.shown


def test_a_host_that_ends(shell: Shell) -> None:
    host, _ = shell.host("--ram", "4M", "--idle")
    session = Session(shell, NO_COLOR="")
    session.until("q quit")
    host.terminate()
    assert session.ends() == 1
    assert LEAVES_SCREEN in session.shown
    assert "livedump: error: " in session.shown.split(LEAVES_SCREEN)[-1]


def test_the_page_map_in_the_mount(watched: tuple[Shell, str]) -> None:
    shell, device = watched
    pages = Path(device).parent / "control" / "pages"
    assert pages.read_text() == "\n"
    shell.run("start", "--no-target")
    letters = pages.read_text()
    assert letters.endswith("\n") and set(letters.strip()) <= set(LETTERS) - {"-", "S", "L"}
    with pytest.raises(OSError, match="ermission"):
        pages.write_text("S\n")
    shell.run("release")
    wait_for(lambda: pages.read_text() == "\n", pages.read_text)
