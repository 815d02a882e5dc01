# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever happens to the host, the guest of a QEMU that ran already runs on, and QEMU has its
settings back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aftermath import wait_for

from livedumpfs.dump import LiveDump
from livedumpfs.machines.attach import AttachedMachine
from tests.qemu.attached_hosts import dump_once, gone, host_in_the_middle
from tests.qemu.running_guests import SIZE, RunningGuest, SomeGuest, firmware_words, running
from tests.qemu.test_qemu_faults import expect_room_ran_out

DEADLINE_S = 300.0
LONG_S, SHORT_S = 600.0, 1.0
"""How long a lifeline bears the silence of its host."""


@pytest.fixture
def guest(firmware: Path, tmp_path: Path) -> Iterator[RunningGuest]:
    with running(tmp_path, firmware_words(firmware)) as found:
        found.boot()
        yield found


def expect_dumpable(guest: SomeGuest) -> None:
    with AttachedMachine(guest.socket) as machine:
        dump_once(machine)


def test_the_host_is_killed(guest: RunningGuest) -> None:
    """Its lifeline reads the rest: a QEMU before 8.1 would hang its guest if the stream broke."""
    guest.other.execute("migrate-set-parameters", {"max-bandwidth": 7_654_321})
    before = guest.settings()
    with host_in_the_middle(guest, LONG_S) as (host, lifeline):
        assert guest.settings()["on"] == ["background-snapshot"]
        host.kill()
        host.wait()
        guest.goes_on()
        wait_for(lambda: guest.migration() == "completed", guest.migration)
        wait_for(lambda: guest.settings() == before, guest.settings)
        wait_for(lambda: gone(lifeline))
    expect_dumpable(guest)
    assert guest.settings() == before


def test_the_host_and_its_lifeline_are_killed(guest: RunningGuest) -> None:
    """The next one that attaches frees the guest, and gives the settings back."""
    before = guest.settings()
    with host_in_the_middle(guest, LONG_S) as (host, lifeline):
        os.kill(lifeline, signal.SIGKILL)
        wait_for(lambda: gone(lifeline))
        host.kill()
        host.wait()
        wait_for(lambda: guest.migration() == "failed", guest.migration)
    assert guest.settings() != before
    with AttachedMachine(guest.socket) as machine:
        machine.start()
        assert not machine.is_hanging()
        guest.goes_on()
        dump_once(machine)
    assert guest.settings() == before
    guest.goes_on()


def test_the_host_stands_still(guest: RunningGuest) -> None:
    """The lifeline reads the stream, so that the guest runs on. QEMU's monitor stays the host's,
    which takes no dump from the rest when it wakes."""
    before = guest.settings()
    with host_in_the_middle(guest, SHORT_S) as (host, lifeline):
        host.send_signal(signal.SIGSTOP)
        guest.goes_on()
        wait_for(lambda: guest.migration() == "completed", guest.migration)
        assert not gone(lifeline) and guest.settings() != before
        host.send_signal(signal.SIGCONT)
        out, _ = host.communicate("\n", timeout=DEADLINE_S)
        assert "stood still" in out, out
        wait_for(lambda: guest.settings() == before, guest.settings)
        wait_for(lambda: gone(lifeline))
    expect_dumpable(guest)


def test_the_host_stands_still_and_is_killed(guest: RunningGuest) -> None:
    before = guest.settings()
    with host_in_the_middle(guest, SHORT_S) as (host, lifeline):
        host.send_signal(signal.SIGSTOP)
        wait_for(lambda: guest.migration() == "completed", guest.migration)
        host.kill()
        host.wait()
        wait_for(lambda: guest.settings() == before, guest.settings)
        wait_for(lambda: gone(lifeline))
    expect_dumpable(guest)


def test_a_paused_guest_of_a_killed_host_is_paused_again(guest: RunningGuest) -> None:
    guest.other.execute("stop")
    before = guest.settings()
    with host_in_the_middle(guest, LONG_S) as (host, lifeline):
        host.kill()
        host.wait()
        wait_for(lambda: gone(lifeline))
    assert guest.settings() == before and guest.other.status() == "paused"
    guest.other.execute("cont")
    guest.goes_on()


def test_a_target_that_is_full(guest: RunningGuest, tmp_path: Path) -> None:
    with AttachedMachine(guest.socket) as machine:
        expect_room_ran_out(machine, guest, tmp_path)  # type: ignore[arg-type]
        assert LiveDump(machine).save(tmp_path / "next") == "consistent"


# ------------------------------------------------------------------- the command line


def test_a_dump_in_one_command(guest: RunningGuest, shell: Any, tmp_path: Path) -> None:
    out, _ = shell.run("attach", "--check", guest.socket)
    assert "a dump can be taken" in out and "running, 1 vCPU, 32 MiB" in out
    assert guest.migration() == "none"
    out, err = shell.run("dump", "--attach", guest.socket, str(tmp_path / "dump"))
    assert "consistent" in out and "as the machine itself has counted it" in out
    assert "released" in err
    out, _ = shell.run("info", str(tmp_path / "dump"))
    assert "qemu-attached (x86_64)" in out
    shell.run("verify", str(tmp_path / "dump"))
    message = shell.fails("dump", "--attach", str(tmp_path / "none"), str(tmp_path / "next"))
    assert "does not listen" in message and not (tmp_path / "next").exists()
    both = ["dump", "--attach", guest.socket, "--device", "x", str(tmp_path / "next")]
    assert "not allowed with argument" in shell.fails(*both, code=2)
    guest.goes_on()


def test_a_host_of_its_own(guest: RunningGuest, shell: Any, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    host = shell.begin("attach", guest.socket, "--mount", str(mount))
    assert "qemu-attached, 32 MiB, 1 vCPU: attached" in host.stdout.readline()
    device = host.stdout.readline().split()[1]
    with pytest.raises(OSError, match="No data available"):
        (mount / "mem").read_bytes()
    assert "rip" in (mount / "machine" / "registers").read_text()
    for number in range(2):
        shell.run("dump", "--device", device, str(tmp_path / f"dump{number}"))
    assert len((mount / "mem").read_bytes()) == SIZE
    out, _ = shell.run("status", "--device", device)
    assert "as the machine itself has counted it" in out
    guest.process.kill()
    assert host.wait(DEADLINE_S) == 0


def hosts_of(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(one) for one in found]


def test_a_command_that_is_interrupted_or_killed(
    guest: RunningGuest, shell: Any, tmp_path: Path
) -> None:
    """No host is left, and the guest runs on."""
    before = guest.settings()
    for number, how in enumerate((signal.SIGINT, signal.SIGKILL)):
        command = shell.begin("dump", "--attach", guest.socket, str(tmp_path / f"dump{number}"))
        wait_for(lambda: guest.migration() in ("active", "completed"), guest.migration)
        hosts = hosts_of(command.pid)
        command.send_signal(how)
        command.wait(DEADLINE_S)
        wait_for(lambda hosts=hosts: all(gone(pid) for pid in hosts))
        wait_for(lambda: guest.settings() == before, guest.settings)
        guest.goes_on()
