# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest never dies of us, and a dump says what it is: hosts that are killed, a QEMU that ends."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aftermath import expect_incomplete, wait_for

from livedumpfs.client import Client
from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.errors import LivedumpError
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.proc import proc_text
from tests.fixtures import forks
from tests.fixtures.program_files import program_file
from tests.qemu.lengths import LONG
from tests.qemu.small_guests import SIZE, held_by, let_pause, qemu_of

DEADLINE_S = 300.0
MIB = 1 << 20
CLI = [sys.executable, "-m", "livedumpfs.cli"]


def gone(pid: int) -> bool:
    """Also when it is a zombie that no process waits for."""
    try:
        return proc_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def livedump(*words: str) -> subprocess.CompletedProcess[str]:
    return forks.run(
        [*CLI, *words], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def test_from_the_command_line(hosted: Any, tmp_path: Path) -> None:
    host, device, guest = hosted
    done = livedump("dump", "--device", device, str(tmp_path / "dump"))
    assert done.returncode == 0 and "consistent" in done.stdout, done
    assert livedump("verify", str(tmp_path / "dump")).returncode == 0
    state = (Path(device).parent / "machine" / "state").read_text()
    assert state.startswith("qemu x86_64")
    guest.goes_on()
    qemu = qemu_of(host.pid)
    host.terminate()
    assert host.wait(DEADLINE_S) == 0
    guest.wait_for(lambda: gone(qemu))


@pytest.mark.parametrize("sweep", [False, True] if LONG else [True], ids=str)
def test_a_killed_host_leaves_the_guest_running(
    hosted: Any, tmp_path: Path, sweep: bool, protection: Any, outliving: Any
) -> None:
    host, device, guest = hosted
    qemu = qemu_of(host.pid)
    target, protected = tmp_path / "dump", protection(qemu, SIZE)
    words = ["--device", device, "--sweep-rate", "1K", str(target)]
    assert livedump("init", *words).returncode == 0
    assert livedump("start", "--device", device).returncode == 0
    if sweep:
        (Path(device).parent / "control" / "state").write_text("3")
        with Client(device) as client:
            guest.wait_for(lambda: client.status().bytes_done > 0)
    with outliving(host) as orphans:
        orphans.append(qemu)
        assert protected.count() > 0
        host.kill()
        host.wait()
        guest.goes_on()
        guest.wait_for(lambda: protected.count() == 0)
        guest.goes_on()
        assert not gone(qemu)
    expect_incomplete(target)


@pytest.mark.parametrize("program", ["held_guest", "long_start"], ids=["held", "starting"])
def test_a_host_that_dies_while_it_holds_the_guest_lets_it_go(
    small_guests: Any,
    tmp_path: Path,
    program: str,
    protection: Any,
    outliving: Any,
) -> None:
    console = tmp_path / "console"
    host = forks.start(
        [sys.executable, program_file(__file__, f"{program}.py"), *small_guests.command(console)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with outliving(host) as orphans:
        qemu = held_by(host, orphans)
        guest, protected = small_guests.of(qemu, console), protection(qemu, SIZE)
        guest.boot()
        let_pause(host)
        host.kill()
        host.wait()
        guest.goes_on()
        guest.wait_for(lambda: protected.count() == 0)


def expect_room_ran_out(machine: QemuMachine, guest: Any, folder: Path) -> None:
    """Two dumps to a file system of 16 MiB: incomplete, and the guest goes on."""
    live, place = LiveDump(machine), folder / "small"
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "small", str(place)], check=True, timeout=300
    )
    try:
        for settings in (
            DumpSettings(format="kdump", compression="none", force=True),
            DumpSettings(format="elf", force=True),
        ):
            live.init(place / "dump", settings)
            live.start()
            with pytest.raises(LivedumpError, match="START is not possible"):
                live.start()
            with pytest.raises(LivedumpError, match="there is a dump already"):
                live.init(folder / "other")
            live.sweep()
            assert live.finish(DEADLINE_S, check=False) == "incomplete"
            assert "No space left" in str(live.failure)
            live.release()
            guest.goes_on()
    finally:
        live.release()
        subprocess.run(["umount", str(place)], check=True, timeout=300)


def expect_given_up(machine: QemuMachine, guest: Any, target: Path, protected: Any) -> None:
    """The socket to the shim is closed during the dump: the guest goes on, without us."""
    live = LiveDump(machine)
    live.init(target, DumpSettings(sweep_rate=4 * MIB))
    live.start()
    live.sweep()
    assert protected.count() > 0
    assert machine.shim is not None
    machine.shim._first.close()
    assert live.wait(DEADLINE_S)
    assert live.verdict == "incomplete" and "given the dump up" in str(live.failure)
    guest.wait_for(lambda: protected.count() == 0)
    live.release()
    guest.goes_on()
    expect_incomplete(target)


def test_a_full_target_a_second_start_and_a_socket_that_is_closed(
    small_guests: Any, tmp_path: Path, protection: Any
) -> None:
    """One guest for all three: Debian takes longer to boot than to dump."""
    console = tmp_path / "console"
    with QemuMachine(small_guests.command(console)) as machine:
        pid = machine._process.pid
        guest, protected = small_guests.of(pid, console), protection(pid, SIZE)
        machine.start()
        guest.boot()
        expect_room_ran_out(machine, guest, tmp_path)
        guest.goes_on()
        assert LiveDump(machine).save(tmp_path / "next") == "consistent"
        expect_given_up(machine, guest, tmp_path / "dump", protected)


def test_a_qemu_that_ends_during_the_dump(firmware: Path, tmp_path: Path) -> None:
    target = tmp_path / "dump"
    words = ["-display", "none", "-nodefaults", "-m", "64M", "-bios", str(firmware)]
    with QemuMachine(["qemu-system-x86_64", "-accel", "tcg", *words]) as machine:
        machine.start()
        live = LiveDump(machine)
        live.init(target, DumpSettings(sweep_rate=MIB))
        live.start()
        wait_for(lambda: live.counters().faults, live.counters)
        live.sweep()
        with contextlib.suppress(LivedumpError):
            machine.monitor.execute("quit")
        wait_for(machine.ended)
        assert live.wait(DEADLINE_S)
        assert live.verdict == "incomplete" and "ended" in str(live.failure)
        live.release()
        with pytest.raises(LivedumpError):
            live.init(tmp_path / "next")
    expect_incomplete(target)


def test_a_command_line_that_cannot_be(tmp_path: Path) -> None:
    done = livedump("qemu", "--mount", str(tmp_path), "--", "qemu-system-x86_64", "-daemonize")
    assert done.returncode == 2 and "daemonize" in done.stderr
    assert livedump("qemu", "--mount", str(tmp_path)).returncode == 2
    missing = livedump("qemu", "--mount", str(tmp_path), "--", str(tmp_path / "no-such-qemu"))
    assert missing.returncode == 1 and "no-such-qemu" in missing.stderr
