# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU outlives whatever becomes of its host: an unmounted mount, a kill at any moment, a stop that
is never undone; with a QEMU that runs firmware only."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aftermath import expect_incomplete

from livedumpfs.machines.qemu.guest_memory import find_mapping, open_mapped
from livedumpfs.proc import proc_lines, proc_text
from tests.fixtures import forks
from tests.fixtures.program_files import program_command

DEADLINE_S = 300.0
KILLS = int(os.environ.get("LIVEDUMP_KILLS", "6"))
SIZE = 64 << 20
CLI = [sys.executable, "-m", "livedumpfs.cli"]
QEMU = [
    "qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults", "-m", "64M",
]  # fmt: skip


def gone(pid: int) -> bool:
    try:
        return proc_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def arguments(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return proc_text(f"/proc/{pid}/cmdline").split("\0")
    return []


def find_qemu(mark: str) -> int:
    """The one that has `mark` among its arguments; 0: none yet."""
    for path in Path("/proc").glob("[0-9]*"):
        words = arguments(int(path.name))
        if mark in words and words[0].startswith("qemu-system"):
            return int(path.name)
    return 0


def ask(path: Path, command: str) -> Any:
    """QEMU's answer, by a monitor of the test's own."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect(str(path))
        lines = sock.makefile("r")
        lines.readline()
        for one in ("qmp_capabilities", command):
            sock.sendall(json.dumps({"execute": one}).encode())
            found: dict[str, Any] = {}
            while "return" not in found and "error" not in found:
                found = json.loads(lines.readline())
        return found["return"]


@dataclass
class Hosted:
    """`livedump qemu` and what it has started."""

    host: subprocess.Popen[str]
    mark: str
    monitor: Path
    mount: Path
    pid: int = 0
    first: int = 0
    """Address of its RAM, once it is ready; nothing is protected before."""

    def qemu(self) -> int:
        """Process id, once there is one."""
        wait_for(lambda: find_qemu(self.mark) or self.host.poll() is not None)
        self.pid = find_qemu(self.mark)
        return self.pid

    def status(self) -> str:
        """Empty: it does not listen yet."""
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return str(ask(self.monitor, "query-status")["status"])
        return ""

    def runs(self) -> None:
        """QEMU lives, its guest runs, and nothing of it is protected."""
        assert self.pid and not gone(self.pid)
        wait_for(lambda: self.status() == "running")
        wait_for(lambda: not self.first or self.count() == 0)
        assert not gone(self.pid)

    def count(self, protected: int = 57) -> int:
        """Pages of its RAM to which a store has to wait."""
        with open(f"/proc/{self.pid}/pagemap", "rb", buffering=0) as pagemap:
            data = os.pread(pagemap.fileno(), SIZE // 4096 * 8, self.first // 4096 * 8)
        return sum(one >> protected & 1 for one in memoryview(data).cast("Q"))

    def fill(self) -> None:
        """Memory that firmware leaves alone: there is something to save."""
        mapping = find_mapping(proc_text(f"/proc/{self.pid}/maps"), SIZE)
        fd = open_mapped(self.pid, mapping)
        os.pwrite(fd, os.urandom(24 << 20), 16 << 20)
        os.close(fd)

    def livedump(self, *words: str) -> subprocess.CompletedProcess[str]:
        return forks.run(
            [*CLI, *words, "--device", str(self.mount / "livedump")],
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip

    def start_dump(self, target: Path) -> None:
        """Until START; nothing of the mount stays open."""
        assert self.livedump("init", str(target)).returncode == 0
        assert self.livedump("start").returncode == 0
        assert self.count() > 0

    def ready(self) -> None:
        assert self.host.stderr
        said = []
        while "device" not in (line := self.host.stderr.readline()):
            said.append(line)
            if not line:
                pytest.fail(f"the host ended with {self.host.wait(DEADLINE_S)}: {''.join(said)}")
        self.first = find_mapping(proc_text(f"/proc/{self.pid}/maps"), SIZE).address


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator[Callable[..., Hosted]]:
    """hosted(*words of QEMU): starts a host. Whatever happens, all of them are gone afterwards."""
    made: list[Hosted] = []

    def start(*words: str) -> Hosted:
        number = len(made)
        mount, monitor = tmp_path / f"mount{number}", Path(os.environ["TMPDIR"]) / f"q{number}"
        mount.mkdir()
        mark = f"unix:{monitor},server=on,wait=off"
        command = [*CLI, "qemu", "--mount", str(mount), "--", *QEMU, "-qmp", mark, *words]
        host = forks.start(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        made.append(Hosted(host, mark, monitor, mount))
        return made[-1]

    yield start
    for one in made:
        one.host.kill()
        one.host.wait()
        pid = find_qemu(one.mark)
        if pid:
            os.kill(pid, signal.SIGKILL)
        if one.host.stderr:
            one.host.stderr.close()
        subprocess.run(["fusermount", "-uz", str(one.mount)], check=False, capture_output=True)


def abort(mount: Path) -> None:
    """The kernel's own end of a FUSE connection: its number is the device's minor."""
    mounts = proc_lines("/proc/self/mountinfo")
    line = next(line for line in mounts if line.split(" ")[4] == str(mount))
    minor = line.split()[2].partition(":")[2]
    control = mount.parent / "fusectl"
    control.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "none", str(control)], check=True, timeout=300)
    try:
        (control / minor / "abort").write_text("1")
    finally:
        subprocess.run(["umount", str(control)], check=True, timeout=300)


def unmount(mount: Path) -> None:
    subprocess.run(["fusermount", "-uz", str(mount)], check=True, capture_output=True)


@pytest.mark.parametrize("lose", [unmount, abort], ids=["fusermount -uz", "fusectl abort"])
def test_a_mount_that_goes_in_the_middle_of_a_dump(
    hosted: Callable[..., Hosted], tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    """The guest goes on, and with it the host, until one of them is told to end."""
    one = hosted()
    one.qemu()
    one.ready()
    one.start_dump(tmp_path / "dump")
    lose(one.mount)
    assert one.host.stderr
    said = one.host.stderr.readline()
    assert re.search(rf"was unmounted: the machine \(pid {one.pid}\) runs on", said), said
    one.runs()
    assert one.host.poll() is None
    one.host.send_signal(signal.SIGTERM)
    assert one.host.wait(DEADLINE_S) == 0
    assert gone(one.pid)


def test_after_an_unmount_the_host_ends_as_qemu_does(hosted: Callable[..., Hosted]) -> None:
    one = hosted()
    one.qemu()
    one.ready()
    unmount(one.mount)
    one.runs()
    os.kill(one.qemu(), signal.SIGKILL)
    assert one.host.wait(DEADLINE_S) == 128 + signal.SIGKILL


def test_a_qemu_that_is_killed_takes_its_host_along(
    hosted: Callable[..., Hosted], tmp_path: Path
) -> None:
    one, target = hosted(), tmp_path / "dump"
    one.qemu()
    one.ready()
    one.fill()
    words = ["--device", str(one.mount / "livedump"), "--sweep-rate", "1K", str(target)]
    with forks.start(
        [*CLI, "dump", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as dump:
        try:
            wait_for(lambda: (one.mount / "control" / "state").read_text().startswith("3"))
            os.kill(one.pid, signal.SIGKILL)
            assert dump.wait(DEADLINE_S) in (1, 3)
            assert dump.stderr and "livedump:" in dump.stderr.read()
        finally:
            dump.kill()
    assert one.host.wait(DEADLINE_S) == 128 + signal.SIGKILL
    expect_incomplete(target)


def test_a_qemu_that_takes_its_time_is_not_killed(hosted: Callable[..., Hosted]) -> None:
    one = hosted()
    pid = one.qemu()
    one.ready()
    os.kill(pid, signal.SIGSTOP)  # SIGTERM waits
    one.host.send_signal(signal.SIGTERM)
    assert one.host.wait(DEADLINE_S) == 1
    assert one.host.stderr and f"QEMU (pid {pid}) has not ended yet" in one.host.stderr.readline()
    assert not gone(pid)
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: gone(pid))


@pytest.mark.parametrize("stopped", [False, True], ids=["", "-S"])
def test_a_host_that_is_killed_before_the_guest_runs(
    hosted: Callable[..., Hosted], stopped: bool
) -> None:
    """No other program would let it run; but a user who gave -S will."""
    one = hosted(*(["-S"] if stopped else []))
    pid = one.qemu()
    # Before it has read the memory map, and mounted.
    wait_for(lambda: one.monitor.exists())
    one.host.kill()
    one.host.wait()
    if stopped:
        assert one.status() == "prelaunch"
    else:
        one.runs()
    assert not gone(pid)


def wait_for_a_dump(one: Hosted, target: Path, chosen: random.Random) -> subprocess.Popen[bytes]:
    """The process that asks for it; half of the time the dump is under way already."""
    one.ready()
    one.fill()
    under_way = chosen.random() < 0.5
    rate = "8M" if under_way else chosen.choice(["8M", "64M", "1G"])
    words = ["--device", str(one.mount / "livedump"), "--sweep-rate", rate, str(target)]
    dump = forks.start([*CLI, "dump", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = one.mount / "control" / "state"
    if under_way:
        wait_for(lambda: state.read_text()[0] in "345")
    return dump


def test_a_host_killed_at_random_moments(hosted: Callable[..., Hosted], tmp_path: Path) -> None:
    """From its start to the end of a dump. LIVEDUMP_KILLS: how often; LIVEDUMP_SEED repeats."""
    seed = int(os.environ.get("LIVEDUMP_SEED", random.randrange(1 << 32)))
    print(f"LIVEDUMP_SEED={seed}")
    chosen = random.Random(seed)
    for number in range(KILLS):
        one = hosted()
        if not one.qemu():
            pytest.fail(str(one.host.stderr and one.host.stderr.read()))
        dump = None
        if number % 3:
            dump = wait_for_a_dump(one, tmp_path / f"dump{number}", chosen)
        after = chosen.uniform(0, 1.5 if dump else 0.5)
        time.sleep(after)
        state = one.mount / "control" / "state"
        at = state.read_text().split()[0] if state.exists() else "none"
        print(f"{number}: after {after:.3f} s, in state {at}")
        one.host.kill()
        one.host.wait()
        one.runs()
        if dump is not None:
            dump.wait(DEADLINE_S)
        os.kill(one.pid, signal.SIGKILL)
        subprocess.run(["fusermount", "-uz", str(one.mount)], check=False, capture_output=True)


def test_a_host_that_stands_still_while_it_holds_the_guest(
    tmp_path: Path, protection: Callable[..., Any]
) -> None:
    """The shim keeps the end of the pause; the START that comes after it is none."""
    monitor = Path(os.environ["TMPDIR"]) / "own"
    mark = f"unix:{monitor},server=on,wait=off"
    host = subprocess.Popen(
        program_command(__file__, "held_at_start.py", *QEMU, "-qmp", mark),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert host.stdin and host.stdout
    pid = 0
    try:
        pid = int(host.stdout.readline())
        protected = protection(pid, SIZE)
        host.stdin.write("\n")
        host.stdin.flush()
        assert host.stdout.readline() == "held\n"
        host.send_signal(signal.SIGSTOP)
        wait_for(lambda: ask(monitor, "query-status")["status"] == "running")
        assert protected.count() == 0
        host.send_signal(signal.SIGCONT)
        host.stdin.write("\n")
        host.stdin.flush()
        assert "stood still" in host.stdout.readline()
        assert host.stdout.readline() == "running\n"
        assert protected.count() == 0
        assert host.stdout.readline() == "consistent\n"  # the next one
    finally:
        host.kill()
        host.wait()
        host.stdin.close()
        host.stdout.close()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
