# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of a domain of a real libvirtd, through libvirt: `make test-libvirt`."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aftermath import wait_for

from livedumpfs.dump import LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.errors import MachineError
from livedumpfs.machines.attach import AttachedMachine
from livedumpfs.machines.attach.libvirt_monitor import LibvirtMonitor
from tests.qemu.attached_hosts import gone, host_in_the_middle
from tests.qemu.instants import check_instant
from tests.qemu.libvirt_guests import (
    DOMAIN,
    WANTED,
    Libvirtd,
    LibvirtGuest,
    domain,
    libvirtd_alone,
    userfaultfd_for_all,
)
from tests.qemu.running_guests import SIZE
from tests.qemu.test_attach import expect_exact
from tests.qemu.test_attach_faults import expect_dumpable
from tests.qemu.this_qemu import DEBIAN_12, version

pytestmark = [
    pytest.mark.alone,  # it changes what userfaultfd allows
    pytest.mark.timeout(600),
    pytest.mark.skipif(not WANTED, reason="`make test-libvirt`; test_libvirt_monitor.py"),
]
LONG_S = 600.0


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[Libvirtd]:
    folder = Path(tempfile.mkdtemp(prefix="livedump-libvirt-"))
    folder.chmod(0o755)  # QEMU's user reads its firmware there
    try:
        with libvirtd_alone(folder) as found:
            yield found
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def guest(libvirtd: Libvirtd, firmware: Path) -> Iterator[LibvirtGuest]:
    with domain(libvirtd, firmware) as found, userfaultfd_for_all(True):
        found.boot()
        yield found


def test_it_is_confined(guest: LibvirtGuest) -> None:
    """Else the other tests would show little."""
    status = Path(f"/proc/{guest.pid}/status").read_text()
    user = int(status.partition("Uid:")[2].split()[0])
    assert user != 0 and "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    own = os.readlink("/proc/self/ns/mnt")
    assert os.readlink(f"/proc/{guest.pid}/ns/mnt") != own


def test_page_for_page_and_register_for_register(guest: LibvirtGuest, tmp_path: Path) -> None:
    with AttachedMachine(guest.socket) as machine:
        assert machine._pid == guest.pid
        for number in range(2):
            expect_exact(guest, machine, tmp_path / f"dump{number}")
            guest.goes_on()
    assert guest.libvirtd.virsh("domstate", DOMAIN) == "running"


def test_a_dump_in_one_command(guest: LibvirtGuest, shell: Any, tmp_path: Path) -> None:
    before, target = guest.settings(), tmp_path / "dump"
    shell.run("dump", "--libvirt", DOMAIN, str(target))
    with open_dump(target) as dump:
        check_instant(dump.read_arena(0, SIZE))
        assert verify_dump(dump).ok
        assert (
            dump.meta["instant"]["wall_ns"] == dump.meta["machine"]["snapshot"]["stopped_wall_ns"]
        )
        assert dump.meta["pause_ns"] > 0, "QEMU's events come through libvirt"
        assert dump.meta["machine"]["monitor"].startswith(f"domain {DOMAIN} of qemu")
    guest.goes_on()
    assert guest.settings() == before
    said, _ = shell.run("attach", "--check", "--libvirt", DOMAIN)
    assert "tainted (custom-monitor)" in said and "a dump can be taken" in said
    assert "custom monitor" in guest.libvirtd.virsh("dominfo", DOMAIN)


def test_libvirt_goes_on_with_it(guest: LibvirtGuest, tmp_path: Path) -> None:
    expect_dumpable(guest)
    virsh = guest.libvirtd.virsh
    virsh("suspend", DOMAIN)
    assert guest.other.status() == "paused" and virsh("domstate", DOMAIN) == "paused"
    with AttachedMachine(guest.socket) as machine:
        assert LiveDump(machine).save(tmp_path / "dump") == "consistent"
    wait_for(lambda: guest.other.status() == "paused", guest.other.status)
    wait_for(lambda: virsh("domstate", DOMAIN) == "paused", lambda: virsh("domstate", DOMAIN))
    virsh("resume", DOMAIN)
    guest.goes_on()
    if version() > DEBIAN_12:  # its libvirt cannot save one of these, with or without us
        return
    state = guest.libvirtd.folder / "state"
    virsh("save", DOMAIN, str(state))
    assert state.stat().st_size > SIZE // 2
    assert virsh("list", "--name") == ""


@pytest.mark.parametrize("restarted", [False, True], ids=["", "and libvirtd"])
def test_the_host_is_killed(guest: LibvirtGuest, restarted: bool) -> None:
    """Its lifeline makes a connection of its own, also to the next libvirtd."""
    before = guest.settings()
    with host_in_the_middle(guest, LONG_S) as (host, lifeline):
        assert guest.settings()["on"] != before["on"]
        if restarted:
            guest.libvirtd.kill()
        host.kill()
        host.wait()
        wait_for(lambda: gone(lifeline), guest.libvirtd.log)
    wait_for(guest.libvirtd.answers, guest.libvirtd.log)
    with LibvirtMonitor(DOMAIN, lambda event: None) as guest.other:
        assert guest.settings() == before
        guest.goes_on()
    expect_dumpable(guest)


def test_libvirtd_ends_in_the_middle(guest: LibvirtGuest) -> None:
    """So does START. The rest is the lifeline's, and the guest runs on."""
    before = guest.settings()
    with host_in_the_middle(guest, LONG_S) as (host, lifeline):
        guest.libvirtd.kill()
        out, _ = host.communicate("\n", timeout=LONG_S)
        assert "done" not in out and "libvirt" in out, out
        wait_for(lambda: gone(lifeline), guest.libvirtd.log)
    wait_for(guest.libvirtd.answers, guest.libvirtd.log)
    with LibvirtMonitor(DOMAIN, lambda event: None) as guest.other:
        assert guest.settings() == before
        guest.goes_on()


def test_the_domain_ends(guest: LibvirtGuest, tmp_path: Path) -> None:
    with AttachedMachine(guest.socket) as machine:
        assert not machine.ended()
        guest.libvirtd.virsh("destroy", DOMAIN)
        wait_for(machine.ended)
        with pytest.raises(MachineError, match="QEMU has ended"):
            LiveDump(machine).init(tmp_path / "dump")
    with pytest.raises(MachineError, match="cannot reach the domain") as found:
        LibvirtMonitor(DOMAIN, lambda event: None)
    assert found.value.errno == errno.ENOENT


def test_without_userfaultfd_it_is_told_what_is_missing(
    guest: LibvirtGuest, shell: Any, tmp_path: Path
) -> None:
    before = guest.settings()
    with userfaultfd_for_all(False):
        said = shell.fails("dump", "--libvirt", DOMAIN, str(tmp_path / "dump"))
    assert "vm.unprivileged_userfaultfd=1" in said
    assert guest.settings() == before and guest.other.status() == "running"
    guest.goes_on()
