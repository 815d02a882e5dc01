# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU at a terminal: its monitors, keys and job control are those that it has without us."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.proc import proc_text

QEMU = "qemu-system-x86_64"
WORDS = (QEMU, "-accel", "tcg", "-m", "32M", "-net", "none")
DEADLINE_S = 300.0
TO_MONITOR, IN_MONITOR, END = b"\x01c", b"\r", b"\x01x"
INTERRUPT, STOP = b"\x03", b"\x1a"
CHARDEV = re.compile(r"^([\w.-]+): filename=([\w:]+)", re.MULTILINE)
OWN = "livedump-monitor"


class Terminal:
    """A program that leads the session of a terminal of ours."""

    def __init__(self, words: Sequence[str]) -> None:
        self.shown = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execvp(words[0], words)

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def wait_for(self, pattern: str) -> str:
        """All up to its end, which is forgotten."""
        end = time.monotonic() + DEADLINE_S
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < end, (pattern, self.shown)
            if select.select([self._fd], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self._fd, 65536).decode(errors="replace")
                except OSError as error:
                    raise AssertionError((pattern, self.shown)) from error
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before.replace("\r", "")

    def status(self) -> int:
        """After its end."""
        end = time.monotonic() + DEADLINE_S
        while not (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            with contextlib.suppress(OSError):  # what no process reads keeps it from its end
                if select.select([self._fd], [], [], 0.05)[0]:
                    self.shown += os.read(self._fd, 65536).decode(errors="replace")
            assert time.monotonic() < end, self.shown
        self.pid = 0
        return os.waitstatus_to_exitcode(found[1])

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


@pytest.fixture
def terminal() -> Iterator[Callable[[Sequence[str]], Terminal]]:
    with contextlib.ExitStack() as opened:

        def make(words: Sequence[str]) -> Terminal:
            found = Terminal(words)
            opened.callback(found.close)
            return found

        yield make


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """The words of `livedump qemu` with a QEMU of these options."""
    mount = tmp_path / "mount"
    mount.mkdir()

    def words(*options: str) -> list[str]:
        host = [sys.executable, "-m", "livedumpfs.cli", "qemu", "--mount", str(mount), "--"]
        return [*host, *WORDS, *options]

    yield words
    # Of a host that was killed.
    unmount = ["fusermount", "-uz", str(mount)]
    subprocess.run(unmount, check=False, capture_output=True, timeout=DEADLINE_S)


def monitor_of(one: Terminal, keys: bytes) -> dict[str, str]:
    """What `info chardev` shows on the terminal."""
    one.type(keys)
    one.wait_for(r"\(qemu\) ")
    one.type(b"info chardev\r")
    text = one.wait_for(r"filename=[^$]*\n\(qemu\) ")
    return {name: kind for name, kind in CHARDEV.findall(text) if name != OWN}


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (["-nographic"], TO_MONITOR),
        (["-nographic", "-serial", "mon:stdio", "-S"], TO_MONITOR),
        (["-nographic", "-serial", "null"], IN_MONITOR),
        (["-nographic", "-nodefaults", "-monitor", "stdio"], IN_MONITOR),
        (["-display", "none", "-serial", "mon:stdio"], TO_MONITOR),
        (["-display", "none", "-monitor", "stdio", "-vga", "none"], IN_MONITOR),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_the_monitor_on_the_terminal_is_qemus_own(
    terminal: Callable[[Sequence[str]], Terminal],
    hosted: Callable[..., list[str]],
    options: list[str],
    keys: bytes,
) -> None:
    alone, ours = terminal([*WORDS, *options]), terminal(hosted(*options))
    expected = monitor_of(alone, keys)
    ours.wait_for("running")
    ours.wait_for("device .*")
    found = monitor_of(ours, keys)
    assert expected and found == expected
    for one in (alone, ours):
        if (
            keys == TO_MONITOR
        ):  # a key of the terminal's goes to the guest, and is not the end of it
            one.type(INTERRUPT + b"info status\r")
            one.wait_for(r"VM status: ")
            one.type(END)
        else:
            one.type(b"quit\r")
        assert one.status() == 0, one.shown


@pytest.mark.parametrize(
    ("options", "monitors"),
    [
        ([], {"compat_monitor0": "vc"}),
        (["-serial", "null"], {"compat_monitor0": "vc"}),
        (["-nodefaults"], {}),
        (["-monitor", "none"], {}),
        (["-monitor", "null"], {"compat_monitor0": "null"}),
        (["-qmp", "null"], {"compat_monitor0": "null"}),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_monitors_that_qemu_makes_by_itself(options: list[str], monitors: dict[str, str]) -> None:
    """As vl.c has it: one on a virtual console unless something says otherwise."""
    with QemuMachine([*WORDS, "-display", "none", *options]) as machine:
        found = dict(CHARDEV.findall(machine.monitor.hmp("info chardev")))
        assert OWN in found
        assert {k: v for k, v in found.items() if "monitor" in k and k != OWN} == monitors


# --------------------------------------------------------------------- job control


def state(task: int, pid: int = 0) -> str:
    """As ps has it, of a process or one of its threads; empty: it has gone."""
    try:
        return proc_text(f"/proc/{pid or task}/task/{task}/stat").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def stands(pid: int) -> bool:
    """Each thread has stopped. Before the last one has, the kernel does not call the process
    stopped, and does not hang up on it when its process group is orphaned."""
    states = {state(int(task.name), pid) for task in Path(f"/proc/{pid}/task").glob("*")}
    return states == {"T"}


def wait_for(what: Callable[[], bool], *said: object) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end, said
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def shell(
    terminal: Callable[[Sequence[str]], Terminal], hosted: Callable[..., list[str]]
) -> Iterator[tuple[Terminal, int, int]]:
    """An interactive shell with `livedump qemu` in the foreground; (shell, host, QEMU)."""
    one = terminal(["bash", "--norc", "--noprofile", "-i"])
    one.type(b"PS1=ready; stty -echo\n")
    one.wait_for("ready$")
    one.type(shlex.join(hosted("-display", "none", "-serial", "stdio")).encode() + b"\n")
    one.wait_for("device .*")
    (host,) = children(one.pid)
    (qemu,) = (pid for pid in children(host) if "qemu" in proc_text(f"/proc/{pid}/comm"))
    try:
        yield one, host, qemu
    finally:
        for pid in (host, qemu):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: state(qemu) in ("", "Z"), qemu)


def test_the_shell_stops_and_continues_both(shell: tuple[Terminal, int, int]) -> None:
    one, host, qemu = shell
    assert os.getpgid(host) == os.getpgid(qemu) != os.getpgid(one.pid)
    one.type(STOP)
    one.wait_for("Stopped")
    wait_for(lambda: stands(host) and stands(qemu), host, qemu)
    one.type(b"echo is $((6 * 7))\n")  # what is typed is the shell's
    one.wait_for("is 42")
    one.type(b"fg\n")
    wait_for(lambda: "T" not in (state(host), state(qemu)), state(host), state(qemu))
    one.type(INTERRUPT)
    one.wait_for("ready$")
    wait_for(lambda: state(host) == state(qemu) == "", state(host), state(qemu))
    assert "error" not in one.shown and "Traceback" not in one.shown


def test_a_host_that_is_killed_leaves_qemu_and_the_shell(shell: tuple[Terminal, int, int]) -> None:
    one, host, qemu = shell
    os.kill(host, signal.SIGKILL)
    one.wait_for("Killed")
    one.type(b"echo is $((6 * 7))\n")
    one.wait_for("is 42")
    assert state(qemu) in ("R", "S")


def test_a_host_that_is_killed_while_both_are_stopped(shell: tuple[Terminal, int, int]) -> None:
    """The kernel hangs up on a stopped process group that no process could continue."""
    one, host, qemu = shell
    one.type(STOP)
    one.wait_for("Stopped")
    wait_for(lambda: stands(host) and stands(qemu), host, qemu)
    os.kill(host, signal.SIGKILL)
    wait_for(lambda: state(qemu) in ("", "Z"), qemu)


def test_a_host_that_leads_the_session_leaves_qemu(
    terminal: Callable[[Sequence[str]], Terminal], hosted: Callable[..., list[str]]
) -> None:
    """The kernel hangs up on its session."""
    one = terminal(hosted("-display", "none"))
    one.wait_for("device .*")
    (qemu,) = (pid for pid in children(one.pid) if "qemu" in proc_text(f"/proc/{pid}/comm"))
    try:
        assert os.getsid(qemu) != os.getsid(one.pid)
        os.kill(one.pid, signal.SIGKILL)
        assert one.status() == -signal.SIGKILL
        assert state(qemu) in ("R", "S")
    finally:
        os.kill(qemu, signal.SIGKILL)
