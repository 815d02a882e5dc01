# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest never dies of us, and a dump says what it is: hosts that are killed, a QEMU that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.errors import LivedumpError
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.snapshot import open_dump

DEADLINE_S = 60.0
MIB = 1 << 20
CLI = [sys.executable, "-m", "livedumpfs.cli"]
HOLD = """
import sys, time
from livedumpfs.machines.qemu import QemuMachine
machine = QemuMachine(sys.argv[1:])
machine.start()
print("started", flush=True)
sys.stdin.readline()
machine.quiesce()
print(machine.monitor.status(), flush=True)
time.sleep(600)
"""

pytestmark = pytest.mark.timeout(300)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    """Also when it is a zombie that nobody waits for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def outliving(host: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Whatever happens, host and QEMU are gone afterwards."""
    orphans: list[int] = []
    try:
        yield orphans
    finally:
        with contextlib.suppress(OSError):
            orphans += children(host.pid)
        host.kill()
        host.wait()
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for stream in (host.stdin, host.stdout, host.stderr):
            if stream is not None:
                stream.close()


def livedump(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *words], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.fixture
def hosted(guest_parts: Any, tmp_path: Path) -> Iterator[Any]:
    """`livedump qemu` in a process of its own, and its guest: (host, device, guest)."""
    command, make_guest = guest_parts
    mount, console = tmp_path / "mount", tmp_path / "console"
    mount.mkdir()
    host = subprocess.Popen(
        [*CLI, "qemu", "--mount", str(mount), "--", *command(console)],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    guest = make_guest(None, console)
    with outliving(host):
        assert host.stderr and "running" in host.stderr.readline()
        device = host.stderr.readline().split()[1]
        guest.wait_for(lambda: guest.number(r"direct reads (\d+)") > 0, 90)
        guest.wait_for(lambda: guest.beats() > 0)
        yield host, device, guest
    subprocess.run(["fusermount", "-uz", str(mount)], check=False, capture_output=True, timeout=30)


def test_from_the_command_line(hosted: Any, tmp_path: Path) -> None:
    host, device, guest = hosted
    done = livedump("dump", "--device", device, str(tmp_path / "dump"))
    assert done.returncode == 0 and "consistent" in done.stdout, done
    assert livedump("verify", str(tmp_path / "dump")).returncode == 0
    state = (Path(device).parent / "machine" / "state").read_text()
    assert state.startswith("qemu x86_64")
    guest.goes_on()
    (qemu,) = children(host.pid)
    host.terminate()
    assert host.wait(DEADLINE_S) == 0
    guest.wait_for(lambda: gone(qemu))


@pytest.mark.parametrize("sweep", [False, True], ids=["started", "sweeping"])
def test_a_killed_host_leaves_the_guest_running(hosted: Any, tmp_path: Path, sweep: bool) -> None:
    host, device, guest = hosted
    target = tmp_path / "dump"
    words = ["--device", device, "--sweep-rate", "4M", str(target)]
    assert livedump("init", *words).returncode == 0
    assert livedump("start", "--device", device).returncode == 0
    if sweep:
        (Path(device).parent / "control" / "state").write_text("3")
        time.sleep(0.5)
    with outliving(host) as orphans:
        orphans += children(host.pid)
        host.kill()
        host.wait()
        guest.goes_on()
        assert not any(gone(pid) for pid in orphans)
    with open_dump(target) as dump:
        assert dump.verdict == "incomplete"


def test_a_host_that_dies_while_it_holds_the_guest_lets_it_go(
    guest_parts: Any, tmp_path: Path
) -> None:
    command, make_guest = guest_parts
    console = tmp_path / "console"
    host = subprocess.Popen(
        [sys.executable, "-c", HOLD, *command(console)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    guest = make_guest(None, console)
    with outliving(host) as orphans:
        assert host.stdin and host.stdout and host.stdout.readline() == "started\n"
        orphans += children(host.pid)
        guest.wait_for(lambda: guest.number(r"direct reads (\d+)") > 0, 90)
        host.stdin.write("\n")
        host.stdin.flush()
        assert host.stdout.readline() == "paused\n"
        host.kill()
        host.wait()
        guest.goes_on()


def test_a_qemu_that_ends_during_the_dump(guest_parts: Any, tmp_path: Path) -> None:
    command, make_guest = guest_parts
    console, target = tmp_path / "console", tmp_path / "dump"
    with QemuMachine(command(console)) as machine:
        guest = make_guest(machine, console)
        machine.start()
        guest.wait_for(lambda: guest.beats() > 0, 90)
        live = LiveDump(machine)
        live.init(target, DumpSettings(sweep_rate=4 * MIB))
        live.start()
        live.sweep()
        with contextlib.suppress(LivedumpError):
            machine.monitor.execute("quit")
        guest.wait_for(machine.ended)
        assert live.wait(DEADLINE_S)
        assert live.verdict == "incomplete" and "ended" in str(live.failure)
        live.release()
        with pytest.raises(LivedumpError):
            live.init(tmp_path / "next")
    with open_dump(target) as dump:
        assert dump.verdict == "incomplete"


def test_a_full_target_and_a_second_start(guest_parts: Any, tmp_path: Path) -> None:
    command, make_guest = guest_parts
    console = tmp_path / "console"
    with QemuMachine(command(console)) as machine:
        guest = make_guest(machine, console)
        machine.start()
        guest.wait_for(lambda: guest.number(r"direct reads (\d+)") > 0, 90)
        live = LiveDump(machine)
        place = tmp_path / "small"
        place.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m", "small", str(place)], check=True, timeout=30
        )
        try:
            live.init(place / "dump", DumpSettings(format="kdump", compression="none"))
            live.start()
            with pytest.raises(LivedumpError):
                live.start()
            live.sweep()
            assert live.finish(DEADLINE_S) == "incomplete"
            assert "No space left" in str(live.failure)
            live.release()
        finally:
            live.release()
            subprocess.run(["umount", str(place)], check=True, timeout=30)
        guest.goes_on()
        assert live.save(tmp_path / "next") == "consistent"


def test_a_command_line_that_cannot_be(tmp_path: Path) -> None:
    done = livedump("qemu", "--mount", str(tmp_path), "--", "qemu-system-x86_64", "-daemonize")
    assert done.returncode == 2 and "daemonize" in done.stderr
    assert livedump("qemu", "--mount", str(tmp_path)).returncode == 2
    missing = livedump("qemu", "--mount", str(tmp_path), "--", str(tmp_path / "no-such-qemu"))
    assert missing.returncode == 1 and "no-such-qemu" in missing.stderr
